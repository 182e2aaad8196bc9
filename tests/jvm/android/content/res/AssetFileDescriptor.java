// As much of Android's class as Assets.kt uses: a whole file is its part of the "APK".
package android.content.res;

import android.os.ParcelFileDescriptor;
import java.io.Closeable;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Path;

public final class AssetFileDescriptor implements Closeable {
  private final RandomAccessFile file;
  private final ParcelFileDescriptor descriptor;

  AssetFileDescriptor(Path path) throws IOException {
    file = new RandomAccessFile(path.toFile(), "r");
    descriptor = new ParcelFileDescriptor(path);
  }

  public ParcelFileDescriptor getParcelFileDescriptor() {
    return descriptor;
  }

  public long getStartOffset() {
    return 0;
  }

  public long getLength() {
    try {
      return file.length();
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  @Override
  public void close() throws IOException {
    file.close();
  }
}
