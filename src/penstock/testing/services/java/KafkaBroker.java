/** One Kafka broker in this process: the argument is its properties file. */
public final class KafkaBroker {
    private KafkaBroker() {
    }

    public static void main(String[] arguments) throws Exception {
        Thread broker = new Thread(() -> kafka.Kafka.main(arguments), "kafka");
        broker.setDaemon(true);
        broker.start();
        while (System.in.read() >= 0) {
            // Whoever started this broker holds its standard input open.
        }
        System.exit(0);
    }
}
