/* What `import CAllMem` brings to Swift. */
#include <allmem/allmem.h>
