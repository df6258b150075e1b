package castile.interop;

import java.io.Closeable;

/** Sends the messages of a cell, one after another, and writes down what became of each. */
public final class Caller {
    private final Echo port;
    private final Options options;
    private final Journal journal;

    public Caller(Echo port, Options options, Journal journal) {
        this.port = port;
        this.options = options;
        this.journal = journal;
    }

    /** {@code beforeLast} is run before the last message: some stacks must be told. */
    public void run(Runnable beforeLast) throws Exception {
        int count = options.number("messages", 10);
        for (int number = options.number("first", 1); number <= count; number++) {
            if (number == count) {
                beforeLast.run();
            }
            call(number);
            Thread.sleep(options.number("pause", 0));
        }
        Thread.sleep(options.number("linger", 0));
        try {
            ((Closeable) port).close();
            journal.add("closed");
        } catch (Exception error) {
            journal.add("failed", "close", 0, causes(error));
        }
    }

    private void call(int number) {
        String operation = options.text("operation", "echo");
        String text = Message.text(number, options.number("size", 100));
        journal.add("sent", operation, number, text.length());
        try {
            if (operation.equals("tell")) {
                port.tell(text);
                journal.add("told", operation, number, text.length());
            } else {
                String answer = port.echo(text);
                journal.add(answer.equals(text) ? "answered" : "garbled", operation, number, answer.length());
            }
        } catch (Exception error) {
            journal.add("failed", operation, number, causes(error));
        }
    }

    private static String causes(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            text.append(text.isEmpty() ? "" : "; caused by ").append(cause);
        }
        return text.toString();
    }
}
