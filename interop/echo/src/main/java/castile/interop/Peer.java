package castile.interop;

import jakarta.xml.ws.Endpoint;
import jakarta.xml.ws.Service;
import jakarta.xml.ws.soap.SOAPBinding;
import java.io.IOException;
import java.net.URL;
import javax.xml.namespace.QName;

/** A peer of either stack: {@code serve}, {@code meter} or calls, as the cell's WSDL on the class path says. */
public abstract class Peer {
    protected final Options options;

    protected Peer(Options options) {
        this.options = options;
    }

    /** What this stack's service must be told beside the WSDL. */
    protected abstract void prepare(Endpoint endpoint);

    /** What this stack's client must be told beside the WSDL; returns what to do before the last call. */
    protected abstract Runnable prepare(Echo port);

    public final void run() throws Exception {
        try (Journal journal = new Journal(options.path("journal"))) {
            if (options.has("serve")) {
                serve(journal);
            } else if (options.has("meter")) {
                new Meter(Peer::port, this::prepare, options.number("size", 1000)).run();
            } else {
                Echo port = port();
                new Caller(port, options, journal).run(prepare(port));
            }
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
        System.exit(0); // whatever threads a stack has left
    }

    private void serve(Journal journal) throws IOException {
        String binding = options.text("soap", "1.2").equals("1.1")
                ? SOAPBinding.SOAP11HTTP_BINDING : SOAPBinding.SOAP12HTTP_BINDING;
        Endpoint endpoint = Endpoint.create(binding, new Handler(journal, options.number("delay", 0)));
        prepare(endpoint);
        endpoint.publish(options.text("serve", ""));
        System.out.println("ready");
        while (System.in.read() >= 0) {
            continue; // the end of the input is the end of the service
        }
        endpoint.stop();
    }

    private static Echo port() {
        URL wsdl = Peer.class.getClassLoader().getResource(Echo.WSDL);
        return Service.create(wsdl, new QName(Echo.NAMESPACE, "EchoService"))
                .getPort(new QName(Echo.NAMESPACE, "EchoPort"), Echo.class);
    }
}
