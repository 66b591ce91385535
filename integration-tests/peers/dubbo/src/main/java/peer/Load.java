package peer;

import java.util.Map;
import java.util.TreeMap;
import org.apache.dubbo.config.ApplicationConfig;
import org.apache.dubbo.config.ReferenceConfig;
import org.apache.dubbo.config.bootstrap.DubboBootstrap;
import org.apache.dubbo.rpc.RpcContext;

/** args: URL. Steady calls; every 200 ms a line of JSON: calls by kind, by who answered. */
public class Load {
    private static final int WORKERS = 4;
    private static Map<String, Map<String, Integer>> counts = new TreeMap<>();

    private static synchronized void add(String kind, String answer) {
        counts.computeIfAbsent(kind, k -> new TreeMap<>()).merge(answer, 1, Integer::sum);
    }

    private static synchronized Map<String, Map<String, Integer>> take() {
        Map<String, Map<String, Integer>> taken = counts;
        counts = new TreeMap<>();
        return taken;
    }

    private static String json(Map<String, Map<String, Integer>> counts) {
        StringBuilder out = new StringBuilder("{");
        counts.forEach((kind, answers) -> {
            out.append(out.length() > 1 ? "," : "").append('"').append(kind).append("\":{");
            StringBuilder inner = new StringBuilder();
            answers.forEach((answer, count) -> inner.append(inner.length() > 0 ? "," : "").append('"')
                .append(answer.replaceAll("[\\\\\"\\p{Cntrl}]", " ")).append("\":").append(count));
            out.append(inner).append('}');
        });
        return out.append('}').toString();
    }

    private static void work(Demo demo) {
        while (true) {
            for (String kind : new String[] {"hello", "hello", "hello", "gray", "slow"}) {
                if (kind.equals("gray")) RpcContext.getClientAttachment().setAttachment("env", "gray");
                try {
                    Object result = kind.equals("slow") ? demo.slow(0) : demo.hello("x");
                    Object who = RpcContext.getClientResponseContext().getAttachment("served-by");
                    add(kind, who == null ? "nobody: " + result : who.toString());
                } catch (Throwable e) {
                    add(kind, e.getClass().getSimpleName() + ": " + String.valueOf(e.getMessage()).lines().findFirst().orElse(""));
                } finally {
                    RpcContext.getClientAttachment().removeAttachment("env");
                }
            }
            try {
                Thread.sleep(2);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    public static void main(String[] a) throws Exception {
        ApplicationConfig app = new ApplicationConfig("peer-load");
        app.setQosEnable(false);
        ReferenceConfig<Demo> reference = Consumer.ref(Demo.class, a[0], false);
        DubboBootstrap.getInstance().application(app).reference(reference).start();
        Demo demo = reference.get();
        for (int i = 0; i < WORKERS; i++) {
            Thread worker = new Thread(() -> work(demo));
            worker.setDaemon(true);
            worker.start();
        }
        while (true) {
            Thread.sleep(200);
            System.out.println(json(take()));
        }
    }
}
