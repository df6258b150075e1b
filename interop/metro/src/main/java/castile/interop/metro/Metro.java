package castile.interop.metro;

import castile.interop.Echo;
import castile.interop.Options;
import castile.interop.Peer;
import com.sun.xml.wss.impl.callback.PasswordValidationCallback;
import jakarta.xml.ws.BindingProvider;
import jakarta.xml.ws.Endpoint;
import java.util.concurrent.Executors;

/** Eclipse Metro. Its keys and users stand in the cell's WSDL and in wsit-client.xml. */
public final class Metro extends Peer {
    private Metro(Options options) {
        super(options);
    }

    public static void main(String[] arguments) throws Exception {
        new Metro(new Options(arguments)).run();
    }

    @Override
    protected void prepare(Endpoint endpoint) {
        // Metro holds the exchange of a message that came too early: with few threads it would wait for ever.
        endpoint.setExecutor(Executors.newCachedThreadPool());
    }

    @Override
    protected Runnable prepare(Echo port) {
        if (options.has("meter")) {
            ((BindingProvider) port).getRequestContext().put("com.sun.xml.ws.request.timeout", 120_000); // ms
        }
        return () -> { };
    }

    /** Knows one user. */
    public static final class Users implements PasswordValidationCallback.PasswordValidator {
        @Override
        public boolean validate(PasswordValidationCallback.Request request) {
            PasswordValidationCallback.PlainTextPasswordRequest plain =
                    (PasswordValidationCallback.PlainTextPasswordRequest) request;
            return plain.getUsername().equals("ada") && plain.getPassword().equals("password");
        }
    }
}
