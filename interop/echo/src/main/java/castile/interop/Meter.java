package castile.interop;

import java.io.BufferedReader;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * The client of a bench. Each line of input is an order, answered by a line: {@code open} (another
 * proxy, and a first call by it), {@code run COUNT SECONDS} (calls until either is reached; the
 * answer is the µs that each took), {@code close}.
 */
public final class Meter {
    private final Supplier<Echo> ports;
    private final Function<Echo, Runnable> prepare;
    private final int size;
    private Echo port;
    private Runnable beforeLast;
    private int number;

    public Meter(Supplier<Echo> ports, Function<Echo, Runnable> prepare, int size) {
        this.ports = ports;
        this.prepare = prepare;
        this.size = size;
    }

    public void run() throws IOException {
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        for (String order = orders.readLine(); order != null; order = orders.readLine()) {
            String[] words = order.split(" ");
            switch (words[0]) {
                case "open" -> open();
                case "run" -> System.out.println(measure(Integer.parseInt(words[1]), Double.parseDouble(words[2])));
                default -> close();
            }
        }
    }

    private void open() {
        port = ports.get();
        beforeLast = prepare.apply(port);
        call();
        System.out.println("[]");
    }

    private List<Long> measure(int count, double seconds) {
        List<Long> taken = new ArrayList<>();
        long deadline = System.nanoTime() + (long) (seconds * 1e9);
        for (long begun = System.nanoTime(); taken.size() < count && begun < deadline; ) {
            call();
            long now = System.nanoTime();
            taken.add((now - begun) / 1000);
            begun = now;
        }
        return taken;
    }

    private void close() throws IOException {
        beforeLast.run();
        call();
        ((Closeable) port).close();
        System.out.println("[]");
    }

    private void call() {
        String text = Message.text(++number, size);
        if (!port.echo(text).equals(text)) {
            throw new IllegalStateException("message " + number + " came back as another");
        }
    }
}
