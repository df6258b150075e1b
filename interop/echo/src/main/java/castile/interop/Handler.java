package castile.interop;

import jakarta.jws.WebService;

/** Writes down each message that the stack delivers, and answers. */
@WebService(endpointInterface = "castile.interop.Echo", targetNamespace = Echo.NAMESPACE,
        serviceName = "EchoService", portName = "EchoPort", wsdlLocation = Echo.WSDL)
public class Handler implements Echo {
    private final Journal journal;
    private final long delay;

    public Handler(Journal journal, long delay) {
        this.journal = journal;
        this.delay = delay;
    }

    @Override
    public String echo(String text) {
        handle("echo", text);
        return text;
    }

    @Override
    public void tell(String text) {
        handle("tell", text);
    }

    private void handle(String operation, String text) {
        journal.add("handled", operation, Message.number(text), text.length());
        try {
            Thread.sleep(delay);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
