// As much of Android's class as Assets.kt uses, over a directory of files; one of them may be compressed.
package android.content.res;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public final class AssetManager {
  private final Path root;
  private final String compressed;

  public AssetManager(Path root, String compressed) {
    this.root = root;
    this.compressed = compressed;
  }

  /** Without a directory, no names: not an exception. */
  public String[] list(String directory) throws IOException {
    if (!Files.isDirectory(root.resolve(directory))) return new String[0];
    try (Stream<Path> files = Files.list(root.resolve(directory))) {
      final List<String> names = files.map(file -> file.getFileName().toString()).sorted().collect(Collectors.toList());
      return names.toArray(new String[0]);
    }
  }

  public AssetFileDescriptor openFd(String name) throws IOException {
    if (name.endsWith(compressed)) throw new FileNotFoundException(name + " is compressed");
    return new AssetFileDescriptor(root.resolve(name));
  }
}
