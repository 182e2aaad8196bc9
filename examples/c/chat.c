/* A chat in C99 that remembers: cc chat.c $(pkg-config --cflags --libs allmem) -o chat
 *
 *   ./chat MODEL_DIRECTORY [MEMORY_FILE]
 *
 * Reads a message a line. Ctrl-C stops an answer; "/reset" forgets everything; the end of the input leaves.
 * With a memory file, what was said is there again the next time. */
#include <allmem/allmem.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static allmem_session* running; /* what Ctrl-C stops */

static void on_interrupt(int signal_number) {
  signal(signal_number, on_interrupt); /* strict C99 takes a handler only once */
  allmem_session_cancel(running);      /* sets a flag; the answer ends within one block of tokens */
}

static int32_t print_piece(const char* text, size_t size, void* user_data) {
  (void)user_data;
  fwrite(text, 1, size, stdout);
  fflush(stdout);
  return 0;
}

static int complain(const char* what) {
  fprintf(stderr, "%s: %s\n", what, allmem_last_error());
  return 1;
}

/* Loads the memory file if there is one. */
static int32_t remember(allmem_session* session, const char* path) {
  const int32_t status = path ? allmem_session_load_file(session, path) : ALLMEM_OK;
  return status == ALLMEM_NOT_FOUND ? ALLMEM_OK : status;
}

/* ALLMEM_CANCELLED when it was stopped before the answer began. */
static int32_t answer(allmem_session* session, const char* text) {
  const allmem_message message = {"user", text};
  allmem_generation result;
  int32_t status;
  result.struct_size = sizeof result;
  status = allmem_session_chat(session, &message, 1, NULL, print_piece, NULL, &result);
  if (status == ALLMEM_OK) {
    print_piece("\n", 1, NULL);
    fprintf(stderr, "  [%d tokens, %.0f a second]\n", (int)result.generated_tokens,
            (double)result.generated_tokens / (result.decode_seconds + 1e-9));
  } else if (status == ALLMEM_CANCELLED) {
    printf("(stopped after reading %d tokens)", (int)result.prompt_tokens);
    print_piece("\n", 1, NULL);
  }
  return status;
}

static int converse(allmem_session* session, const char* memory) {
  static char line[1 << 20]; /* people paste long texts */
  if (remember(session, memory) != ALLMEM_OK) return complain("The memory was not loaded");
  while (fgets(line, sizeof line, stdin) != NULL) {
    int32_t status;
    line[strcspn(line, "\r\n")] = '\0';
    if (line[0] == '\0') continue;
    status = strcmp(line, "/reset") == 0 ? allmem_session_reset(session) : answer(session, line);
    if (status == ALLMEM_CANCELLED) continue;
    if (status != ALLMEM_OK) return complain("No answer");
    if (memory != NULL && allmem_session_save_file(session, NULL, 0, memory) != ALLMEM_OK) {
      return complain("The memory was not saved");
    }
  }
  return 0;
}

int main(int argc, char** argv) {
  allmem_model* model = NULL;
  allmem_session* session = NULL;
  int code;
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: chat MODEL_DIRECTORY [MEMORY_FILE]\n");
    return 2;
  }
  if (allmem_model_load(argv[1], NULL, &model) != ALLMEM_OK) return complain("The model was not loaded");
  if (allmem_session_create(model, NULL, &session) != ALLMEM_OK) return complain("No session");
  running = session;
  signal(SIGINT, on_interrupt);
  code = converse(session, argc == 3 ? argv[2] : NULL);
  allmem_session_free(session);
  allmem_model_free(model);
  return code;
}
