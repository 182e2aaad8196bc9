// As much of Android's class as Assets.kt uses: the number of an open descriptor, which Java itself does not tell.
package android.os;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public final class ParcelFileDescriptor {
  private final int fd;

  public ParcelFileDescriptor(Path openFile) throws IOException {
    fd = numbersOf(openFile).get(0);
  }

  public int getFd() {
    return fd;
  }

  /** Of all descriptors that have `file`, or a file below it, open. */
  public static List<Integer> numbersOf(Path file) throws IOException {
    final Path real = file.toRealPath();
    try (Stream<Path> links = Files.list(Path.of("/proc/self/fd"))) {
      return links.filter(link -> target(link).startsWith(real)).map(link -> Integer.valueOf(link.getFileName().toString()))
          .collect(Collectors.toList());
    }
  }

  private static Path target(Path link) {
    try {
      return Files.readSymbolicLink(link);
    } catch (NoSuchFileException closed) { // by another thread of the JVM, meanwhile
      return Path.of("/");
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }
}
