package castile.interop;

import java.io.Closeable;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.stream.Collectors;

/** The application's own log, a line for each event, its facts apart by tabs. */
public final class Journal implements Closeable {
    private final Writer out;

    public Journal(Path path) throws IOException {
        out = Files.newBufferedWriter(path, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }

    public synchronized void add(Object... facts) {
        try {
            out.write(Arrays.stream(facts).map(Journal::plain).collect(Collectors.joining("\t")) + "\n");
            out.flush();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static String plain(Object fact) {
        return String.valueOf(fact).replaceAll("\\s+", " ");
    }

    @Override
    public void close() throws IOException {
        out.close();
    }
}
