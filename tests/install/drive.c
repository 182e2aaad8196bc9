/* Drives examples/c/chat.c as a person does: stops it in the middle of long messages, resets it, reads an
 * answer as it is written, leaves, starts it again and is remembered.
 *
 *   ./drive CHAT_PROGRAM MODEL_DIRECTORY MEMORY_FILE
 *
 * Its processor time is what is measured: a busy machine does not change it much. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 128, ROUNDS = 9, LINE = 400000 };

#define REQUIRE(condition)                                            \
  do {                                                                \
    if (!(condition)) {                                               \
      fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition); \
      if (chat.process > 0) kill(chat.process, SIGKILL);              \
      exit(1);                                                        \
    }                                                                 \
  } while (0)

static struct {
  pid_t process;
  int input, output; /* of sockets that keep each of its writes apart */
} chat;

static void start(char* const* arguments) {
  int in[2], out[2];
  REQUIRE(pipe(in) == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, out) == 0);
  chat.process = fork();
  if (chat.process == 0) {
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    close(in[0]), close(in[1]), close(out[0]), close(out[1]);
    execv(arguments[0], arguments);
    _exit(127);
  }
  REQUIRE(chat.process > 0);
  close(in[0]), close(out[1]);
  chat.input = in[1], chat.output = out[0];
}

static void leave(void) {
  int status = -1;
  close(chat.input);
  REQUIRE(waitpid(chat.process, &status, 0) == chat.process && status == 0);
  close(chat.output);
}

static void type(const char* text) {
  size_t left = strlen(text);
  while (left > 0) {
    const ssize_t count = write(chat.input, text, left);
    REQUIRE(count > 0);
    text += count, left -= (size_t)count;
  }
}

/* What it writes up to the end of a line; how many pieces that were. */
static int hear(char* line, size_t room) {
  int pieces = 0;
  size_t size = 0;
  do {
    const ssize_t count = recv(chat.output, line + size, room - size - 1, 0);
    REQUIRE(count > 0);
    size += (size_t)count;
    ++pieces;
  } while (line[size - 1] != '\n');
  line[size] = '\0';
  return pieces;
}

static double processor_seconds(void) {
  clockid_t clock;
  struct timespec now;
  REQUIRE(clock_getcpuclockid(chat.process, &clock) == 0 && clock_gettime(clock, &now) == 0);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* How many blocks the reading of a long message went on after Ctrl-C. */
static double blocks_after_interrupt(const char* message) {
  char line[256];
  int read = 0;
  double interrupted;
  const double begin = processor_seconds();
  type(message);
  while ((interrupted = processor_seconds()) < begin + 0.3) usleep(100);
  REQUIRE(kill(chat.process, SIGINT) == 0);
  hear(line, sizeof line);
  REQUIRE(sscanf(line, "(stopped after reading %d tokens)", &read) == 1);
  REQUIRE(read > 0 && read < LINE / 4 && read % BLOCK == 0); /* in the middle: the message has more */
  return (processor_seconds() - interrupted) / ((processor_seconds() - begin) / (read / BLOCK));
}

static int ascending(const void* a, const void* b) {
  return (*(const double*)a > *(const double*)b) - (*(const double*)a < *(const double*)b);
}

int main(int argc, char** argv) {
  static const char words[] = "I walk and walk. "; /* some six tokens */
  static char message[LINE + 2], line[65536];
  char* arguments[4];
  double blocks[ROUNDS];
  int i, pieces;
  REQUIRE(argc == 4);
  for (i = 0; i < 3; ++i) arguments[i] = argv[i + 1];
  arguments[3] = NULL;
  for (i = 0; i < LINE; ++i) message[i] = words[i % (sizeof words - 1)];
  message[LINE] = '\n';

  start(arguments);
  for (i = 0; i < ROUNDS; ++i) blocks[i] = blocks_after_interrupt(message);
  qsort(blocks, ROUNDS, sizeof blocks[0], ascending);
  printf("after Ctrl-C, reading went on for %.2f to %.2f blocks, in the median %.2f\n", blocks[0],
         blocks[ROUNDS - 1], blocks[ROUNDS / 2]);
  REQUIRE(blocks[ROUNDS / 2] <= 1);

  type("/reset\nHi, I'm Tobias.\n");
  pieces = hear(line, sizeof line);
  printf("%d pieces: %s", pieces, line);
  REQUIRE(pieces > 2); /* as they come, not all at the end */
  leave();

  start(arguments);
  type("What is my name?\n");
  hear(line, sizeof line);
  printf("%s", line);
  REQUIRE(strstr(line, "Tobias") != NULL);
  leave();
  return 0;
}
