package castile.interop;

/** The text of a message: its number, and dots up to its size. */
public final class Message {
    private Message() {
    }

    public static String text(int number, int size) {
        String head = number + " ";
        return head + ".".repeat(Math.max(0, size - head.length()));
    }

    public static String number(String text) {
        return text.split(" ", 2)[0];
    }
}
