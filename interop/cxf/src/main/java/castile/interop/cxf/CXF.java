package castile.interop.cxf;

import castile.interop.Echo;
import castile.interop.Options;
import castile.interop.Peer;
import jakarta.xml.ws.BindingProvider;
import jakarta.xml.ws.Endpoint;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.CallbackHandler;
import org.apache.cxf.BusFactory;
import org.apache.cxf.message.Message;
import org.apache.cxf.ws.rm.RMConfiguration;
import org.apache.cxf.ws.rm.RMManager;
import org.apache.cxf.ws.rm.persistence.jdbc.RMTxStore;
import org.apache.wss4j.common.ext.WSPasswordCallback;

/** Apache CXF. */
public final class CXF extends Peer {
    private static final String RM = "org.apache.cxf.ws.rm.";
    private static final int WAIT = 120_000; // ms for an answer

    private CXF(Options options) {
        super(options);
    }

    public static void main(String[] arguments) throws Exception {
        new CXF(new Options(arguments)).run();
    }

    @Override
    protected void prepare(Endpoint endpoint) {
        // Exactly once, in order: RM 1.1's policies say so, RM 1.0 has no word for it.
        RMConfiguration reliability =
                BusFactory.getDefaultBus().getExtension(RMManager.class).getConfiguration();
        reliability.setDeliveryAssurance(RMConfiguration.DeliveryAssurance.EXACTLY_ONCE);
        reliability.setInOrder(true);
        store();
        Map<String, Object> properties = new HashMap<>(security("bob"));
        properties.put("security.encryption.username.sct", "useReqSigCert"); // the answer is for whoever signed
        properties.put("security.subject.cert.constraints.sct", ".*O=castile-interop.*");
        endpoint.setProperties(properties);
    }

    @Override
    protected Runnable prepare(Echo port) {
        Map<String, Object> context = ((BindingProvider) port).getRequestContext();
        store();
        context.putAll(security("alice"));
        context.put("security.signature.username.sct", "alice");
        context.put("security.encryption.username.sct", "bob");
        context.put("security.username.sct", options.text("user", "ada"));
        if (options.has("addressing")) {
            context.put(RM + "wsa-namespace", options.text("addressing", ""));
        }
        if (options.has("meter")) { // a cold start takes longer than the 3 s after which it would repeat a message
            context.put(RM + "retransmission-interval", 60_000L);
            context.put(Message.RECEIVE_TIMEOUT, WAIT);
        }
        return () -> context.put(RM + "last-message", true);
    }

    /** Sequences and messages in a database of its own, each commit synced; else in memory. */
    private void store() {
        RMManager manager = BusFactory.getDefaultBus().getExtension(RMManager.class);
        if (!options.has("store") || manager.getStore() != null) {
            return;
        }
        RMTxStore store = new RMTxStore();
        store.setDriverClassName("org.hsqldb.jdbc.JDBCDriver");
        store.setUrl("jdbc:hsqldb:file:" + options.path("store") + ";hsqldb.write_delay=false");
        store.setUserName("sa");
        store.setPassword("");
        store.init();
        manager.setStore(store);
    }

    /** The bootstrap's; the secure conversation itself needs none. */
    private Map<String, Object> security(String who) {
        Map<String, Object> crypto = new HashMap<>();
        String keystore = "org.apache.wss4j.crypto.merlin.keystore.";
        Properties properties = new Properties();
        properties.put("org.apache.wss4j.crypto.provider", "org.apache.wss4j.common.crypto.Merlin");
        properties.put(keystore + "type", "pkcs12");
        properties.put(keystore + "file", options.path("keys").resolve(who + ".p12").toString());
        properties.put(keystore + "password", "password");
        properties.put(keystore + "alias", who);
        crypto.put("security.signature.properties.sct", properties);
        crypto.put("security.encryption.properties.sct", properties);
        crypto.put("security.callback-handler.sct", new Secrets(options.text("password", "password")));
        if (options.has("lifetime")) {
            crypto.put("ws-security.security.token.lifetime", options.text("lifetime", "") + "000");
        }
        return crypto;
    }

    /** Opens the private key, and knows the user's password. */
    private record Secrets(String user) implements CallbackHandler {
        @Override
        public void handle(Callback[] callbacks) {
            for (Callback callback : callbacks) {
                WSPasswordCallback asked = (WSPasswordCallback) callback;
                boolean key = asked.getUsage() != WSPasswordCallback.USERNAME_TOKEN;
                asked.setPassword(key ? "password" : user);
            }
        }
    }
}
