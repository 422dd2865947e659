import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.opensearch.Version;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.plugins.Plugin;
import org.opensearch.plugins.PluginInfo;

/** One OpenSearch node in this process: arguments are its home folder, the HTTP port and the transport port. */
public final class OpenSearchNode extends Node {
    private static final List<Class<? extends Plugin>> MODULES = List.of(
        org.opensearch.transport.Netty4ModulePlugin.class,
        org.opensearch.analysis.common.CommonAnalysisModulePlugin.class,
        org.opensearch.ingest.common.IngestCommonModulePlugin.class,
        org.opensearch.ingest.useragent.IngestUserAgentModulePlugin.class,
        org.opensearch.index.mapper.MapperExtrasModulePlugin.class,
        org.opensearch.painless.PainlessModulePlugin.class,
        org.opensearch.script.expression.ExpressionModulePlugin.class,
        org.opensearch.script.mustache.MustacheModulePlugin.class,
        org.opensearch.index.reindex.ReindexModulePlugin.class,
        org.opensearch.join.ParentJoinModulePlugin.class,
        org.opensearch.percolator.PercolatorModulePlugin.class,
        org.opensearch.geo.GeoModulePlugin.class,
        org.opensearch.search.aggregations.matrix.MatrixAggregationModulePlugin.class);

    private OpenSearchNode(Environment environment) {
        super(environment, MODULES.stream().map(OpenSearchNode::describe).toList(), true);
    }

    private static PluginInfo describe(Class<? extends Plugin> module) {
        String name = module.getName();
        return new PluginInfo(name, name, "1", Version.CURRENT, "21", name, null, List.of(), false);
    }

    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]);
        Files.createDirectories(home.resolve("config"));
        Settings settings = Settings.builder()
            .put("path.home", home)
            .put("path.repo", home.resolve("repo"))
            .put("cluster.name", "penstock-tests")
            .put("node.name", "node-1")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.type", "netty4")
            .put("http.port", arguments[1])
            .put("transport.type", "netty4")
            .put("transport.port", arguments[2])
            // A nearly full disk would make every index read-only.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        Node node = new OpenSearchNode(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "node-1"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }));
        node.start();
        while (System.in.read() >= 0) {
            // Whoever started this node holds its standard input open.
        }
        System.exit(0);
    }
}
