// The failures for which Java has no exception of its own.
package org.allmem;

/** A model or a memory was refused, or a session was left unusable. The message is a sentence. */
public final class AllMemException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** "ALLMEM_BAD_MODEL", "ALLMEM_BAD_SNAPSHOT", ...: a status of allmem.h. */
  public final String status;

  AllMemException(String status, String sentence) {
    super(sentence);
    this.status = status;
  }
}
