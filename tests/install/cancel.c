/* Cancels in the middle of a long prefill, from another thread; measures that it ends within one block of
 * tokens, and talks on after a reset.
 *
 *   ./cancel MODEL_DIRECTORY
 *
 * Processor time of the reading thread is what is measured: a busy machine does not change it much. */
#define _POSIX_C_SOURCE 200809L
#include <allmem/allmem.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCK = 128, ROUNDS = 9, PROMPT = 1 << 20 };

#define REQUIRE(condition)                                                                      \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #condition, allmem_last_error()); \
      exit(1);                                                                                  \
    }                                                                                           \
  } while (0)

static allmem_session* session;
static int32_t prompt[PROMPT];

typedef struct prefill {
  int32_t status;
  size_t read;
  double seconds; /* processor time of its thread */
} prefill;

static double seconds_of(clockid_t clock) {
  struct timespec now;
  REQUIRE(clock_gettime(clock, &now) == 0);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void* read_prompt(void* result) {
  prefill* done = result;
  done->status = allmem_session_prefill(session, prompt, PROMPT, &done->read);
  done->seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  return NULL;
}

/* How many blocks the reading went on after it was cancelled. */
static double blocks_after_cancel(void) {
  pthread_t thread;
  clockid_t clock;
  prefill done;
  allmem_session_info info;
  double cancelled;
  REQUIRE(allmem_session_reset(session) == ALLMEM_OK);
  REQUIRE(pthread_create(&thread, NULL, read_prompt, &done) == 0);
  REQUIRE(pthread_getcpuclockid(thread, &clock) == 0);
  while ((cancelled = seconds_of(clock)) < 0.05) sched_yield();
  REQUIRE(allmem_session_cancel(session) == ALLMEM_OK);
  REQUIRE(pthread_join(thread, NULL) == 0);
  REQUIRE(done.status == ALLMEM_CANCELLED);
  REQUIRE(done.read > 0 && done.read < PROMPT && done.read % BLOCK == 0);
  info.struct_size = sizeof info;
  REQUIRE(allmem_session_get_info(session, &info) == ALLMEM_OK && info.position == done.read);
  return (done.seconds - cancelled) / (done.seconds / (double)(done.read / BLOCK));
}

static int ascending(const void* a, const void* b) {
  return (*(const double*)a > *(const double*)b) - (*(const double*)a < *(const double*)b);
}

static int32_t append(const char* text, size_t size, void* answer) {
  strncat(answer, text, size);
  return strlen(answer) > 2048;
}

int main(int argc, char** argv) {
  const allmem_message hello = {"user", "Hello!"};
  allmem_model* model;
  allmem_session_options options;
  allmem_generation generation;
  double blocks[ROUNDS];
  size_t count, i;
  char answer[4096] = "";
  REQUIRE(argc == 2 && allmem_model_load(argv[1], NULL, &model) == ALLMEM_OK);
  allmem_session_options_init(&options);
  options.threads = 1;
  REQUIRE(allmem_session_create(model, &options, &session) == ALLMEM_OK);
  REQUIRE(allmem_tokenize(model, "I walk and walk. ", ALLMEM_NUL_TERMINATED, 0, prompt, PROMPT, &count) ==
          ALLMEM_OK);
  for (i = count; i < PROMPT; ++i) prompt[i] = prompt[i - count];

  for (i = 0; i < ROUNDS; ++i) blocks[i] = blocks_after_cancel();
  qsort(blocks, ROUNDS, sizeof blocks[0], ascending);
  printf("after a cancel, reading went on for %.2f to %.2f blocks, in the median %.2f\n", blocks[0],
         blocks[ROUNDS - 1], blocks[ROUNDS / 2]);
  REQUIRE(blocks[ROUNDS / 2] <= 1);

  REQUIRE(allmem_session_reset(session) == ALLMEM_OK);
  generation.struct_size = sizeof generation;
  REQUIRE(allmem_session_chat(session, &hello, 1, NULL, append, answer, &generation) == ALLMEM_OK);
  REQUIRE(generation.finish == ALLMEM_FINISH_STOP_TOKEN && strlen(answer) > 0);
  printf("after a reset: %s\n", answer);
  allmem_session_free(session);
  allmem_model_free(model);
  return 0;
}
