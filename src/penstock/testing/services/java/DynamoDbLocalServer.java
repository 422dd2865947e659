import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.lang.reflect.Field;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.handler.ContextHandler;
import software.amazon.dynamodb.services.local.server.LocalDynamoDBRequestHandler;
import software.amazon.dynamodb.services.local.server.LocalDynamoDBServerHandler;
import software.amazon.dynamodb.services.local.shared.access.AmazonDynamoDBLocal;

/**
 * DynamoDB Local on the loopback interface only: arguments are its port, a control port, and a data folder or "memory".
 *
 * <p>The control port does what no API call can: POST /rollover closes every open stream shard and opens a child of it;
 * POST /age?HOURS moves the events of all streams that many hours into the past.
 */
public final class DynamoDbLocalServer {
    private static final boolean SHARED = true; // one set of tables, whatever access key and region a client uses
    private static final boolean NO_DELAYS = false;

    public static void main(String[] arguments) throws Exception {
        boolean inMemory = arguments[2].equals("memory");
        LocalDynamoDBRequestHandler requests =
            new LocalDynamoDBRequestHandler(0, inMemory, inMemory ? null : arguments[2], SHARED, NO_DELAYS);
        Server server = new Server(loopback(arguments[0]));
        ContextHandler context = new ContextHandler();
        context.setHandler(new LocalDynamoDBServerHandler(requests, null));
        server.setHandler(context);
        server.start();

        HttpServer control = HttpServer.create(loopback(arguments[1]), 0);
        control.createContext("/rollover", exchange -> answer(exchange, requests, AmazonDynamoDBLocal::triggerShardRollovers));
        control.createContext("/age", exchange -> {
            long hours = Long.parseLong(exchange.getRequestURI().getQuery());
            answer(exchange, requests, database -> database.dilateEventTimes(hours * 3_600_000L));
        });
        control.start();

        while (System.in.read() >= 0) {
            // Whoever started this server holds its standard input open.
        }
        System.exit(0);
    }

    private interface Act {
        void on(AmazonDynamoDBLocal database);
    }

    private static void answer(HttpExchange exchange, LocalDynamoDBRequestHandler requests, Act act) throws IOException {
        int status = 200;
        String text = "done";
        try {
            databases(requests).values().forEach(act::on);
        } catch (Exception e) {
            e.printStackTrace();
            status = 500;
            text = e.toString();
        }
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }

    @SuppressWarnings("unchecked")
    private static Map<String, AmazonDynamoDBLocal> databases(LocalDynamoDBRequestHandler requests) throws Exception {
        Field field = LocalDynamoDBRequestHandler.class.getDeclaredField("dbRequestHandlers");
        field.setAccessible(true);
        return (Map<String, AmazonDynamoDBLocal>) field.get(requests);
    }

    private static InetSocketAddress loopback(String port) throws Exception {
        return new InetSocketAddress(InetAddress.getByName("127.0.0.1"), Integer.parseInt(port));
    }
}
