/* A text that one process begins and another one ends: across_processes MODEL FILE whole|begin|end
 *
 * `whole` writes a text to stdout in one go. `begin` does so until the third piece, saves to FILE and exits;
 * `end` loads FILE and writes the rest, then draws some tokens more by hand. Both together must equal
 * `whole`. */
#include <allmem/allmem.h>
#include <stdio.h>
#include <string.h>

static int32_t print_piece(const char* text, size_t size, void* left) {
  fwrite(text, 1, size, stdout);
  return --*(int*)left == 0;
}

static int complain(const char* what) {
  fprintf(stderr, "%s: %s\n", what, allmem_last_error());
  return 1;
}

/* Tokens of a sampler with a seed and a repetition window, after the text. */
static int draw(allmem_session* session, int count) {
  int32_t id = 65;
  while (count-- > 0) {
    if (allmem_session_prefill(session, &id, 1, NULL) != ALLMEM_OK) return complain("prefill");
    if (allmem_session_sample(session, &id) != ALLMEM_OK) return complain("sample");
    printf(" %d", (int)id);
  }
  return 0;
}

static int run(allmem_session* session, const char* file, const char* part) {
  const allmem_message message = {"user", "Hello! How are you today? I was in the garden all morning."};
  const int begins = strcmp(part, "end") != 0, ends = strcmp(part, "begin") != 0;
  int pieces = ends ? 1 << 20 : 3;
  allmem_sampling sampling;
  allmem_sampling_init(&sampling);
  sampling.temperature = 0.9f;
  sampling.repetition_penalty = 1.2f;
  sampling.seed = 12;
  sampling.max_tokens = 40;
  if (begins) {
    if (allmem_session_set_sampling(session, &sampling) != ALLMEM_OK) return complain("set_sampling");
    if (draw(session, 5) != 0) return 1;
    if (allmem_session_chat(session, &message, 1, &sampling, print_piece, &pieces, NULL) != ALLMEM_OK)
      return complain("chat");
    if (!ends && allmem_session_save_file(session, NULL, 0, file) != ALLMEM_OK) return complain("save");
  } else {
    if (allmem_session_load_file(session, file) != ALLMEM_OK) return complain("load");
    if (allmem_session_resume(session, print_piece, &pieces, NULL) != ALLMEM_OK) return complain("resume");
  }
  return ends ? draw(session, 20) : 0;
}

int main(int argc, char** argv) {
  allmem_model* model = NULL;
  allmem_session* session = NULL;
  int code;
  if (argc != 4) return 2;
  if (allmem_model_load(argv[1], NULL, &model) != ALLMEM_OK) return complain("model");
  if (allmem_session_create(model, NULL, &session) != ALLMEM_OK) return complain("session");
  code = run(session, argv[2], argv[3]);
  allmem_session_free(session);
  allmem_model_free(model);
  return code;
}
