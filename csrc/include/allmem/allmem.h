/* allmem.h: AllMem language models inside your own program. C99 and C++.
 *
 * A model is immutable, mapped from its files and shared by any number of sessions and threads. A session is
 * one conversation: all mutable state, allocated once at its final size, the same after ten tokens and after
 * ten million. Nothing is global but the threads that sessions share: there is no init and no shutdown.
 *
 *   allmem_model* model;       allmem_model_load("path/to/model", NULL, &model);
 *   allmem_session* session;   allmem_session_create(model, NULL, &session);
 *   allmem_message ask = {"user", "Hello!"};
 *   allmem_session_chat(session, &ask, 1, NULL, print_piece, NULL, NULL);
 *
 * Rules, without exception:
 *  - Functions that can fail return a status: ALLMEM_OK is 0. allmem_last_error() then gives a sentence for
 *    people, kept for each thread until its next failing call. Out-parameters come last, and are written only
 *    on success unless their comment says otherwise.
 *  - Strings are UTF-8. A length of ALLMEM_NUL_TERMINATED means "up to the NUL".
 *  - Where you give a buffer, its capacity follows it, then `count`, which receives the size that is needed.
 *    A buffer that is NULL or too small gives ALLMEM_BUFFER_TOO_SMALL and still the count: ask, allocate, ask
 *    again. Where nothing is needed, ALLMEM_OK and a count of 0.
 *  - Structs that begin with struct_size: those of options are filled by their _init, and NULL means the
 *    defaults; of those that you receive, set struct_size = sizeof before the call. They may grow at their
 *    end: _init is a macro that says how large yours is (where there are no macros, call its _sized
 *    function).
 *  - free(NULL) does nothing. A session keeps its model alive, so they may be freed in any order.
 *  - A session has one caller at a time; a second one gets ALLMEM_IN_USE. So has a batch. Only
 *    allmem_session_cancel() may be called from any thread at any time, while the session exists.
 *  - An error within reading (out of memory, a failed system call) poisons the session: until a reset, wipe,
 *    undo or load, whatever reads, writes or saves gives ALLMEM_POISONED. Refused arguments change nothing.
 */
#ifndef ALLMEM_ALLMEM_H
#define ALLMEM_ALLMEM_H

#include <stddef.h>
#include <stdint.h>

#if defined(ALLMEM_STATIC)
#define ALLMEM_API
#elif defined(_WIN32) && defined(ALLMEM_EXPORTS) /* while the library itself is built */
#define ALLMEM_API __declspec(dllexport)
#elif defined(_WIN32)
#define ALLMEM_API __declspec(dllimport)
#else
#define ALLMEM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ALLMEM_ABI_VERSION 1
#define ALLMEM_NUL_TERMINATED SIZE_MAX

/* --- Status ----------------------------------------------------------------------------------------------
 */

enum {
  ALLMEM_OK = 0,
  ALLMEM_INVALID_ARGUMENT = 1,  /* the call breaks its contract */
  ALLMEM_NOT_FOUND = 2,         /* no such file or directory, or no tokenizer.json where text is needed */
  ALLMEM_IO = 3,                /* the system refused to read, write or map */
  ALLMEM_BAD_MODEL = 4,         /* model.onnx or its data is damaged or inconsistent */
  ALLMEM_UNSUPPORTED = 5,       /* well-formed, but needs something that this library does not have */
  ALLMEM_BAD_TOKENIZER = 6,     /* tokenizer.json or generation_config.json is damaged or inconsistent */
  ALLMEM_CANCELLED = 7,         /* stopped on request; the session is usable */
  ALLMEM_BAD_SNAPSHOT = 8,      /* a saved memory is damaged, or of another model or format */
  ALLMEM_POISONED = 9,          /* an earlier error interrupted the session: undo, load or reset */
  ALLMEM_BUFFER_TOO_SMALL = 10, /* `count` says what is needed */
  ALLMEM_IN_USE = 11,           /* a call of this session, batch or decoder is under way */
  ALLMEM_OUT_OF_MEMORY = 12,    /* a model or a session does not fit, an allocation failed or a thread */
  ALLMEM_INTERNAL = 13,         /* a defect of this library; please report it */
  ALLMEM_CONFLICT = 14          /* the memory file is not what this session knows: nothing was written */
};

/* The library's version, e.g. "0.2.0", and the ABI that it was built for. Compare with ALLMEM_ABI_VERSION. */
ALLMEM_API const char* allmem_version(void);
ALLMEM_API int32_t allmem_abi_version(void);
/* "ALLMEM_NOT_FOUND"; "unknown status" for a number that is none. */
ALLMEM_API const char* allmem_status_name(int32_t status);
/* What the last failing call of this thread said; "" before the first. Valid until the next failing call. */
ALLMEM_API const char* allmem_last_error(void);
/* The instruction set whose kernels are in use: "avx2", "ref", ...; "" when ALLMEM_ISA names one that this
 * machine lacks. */
ALLMEM_API const char* allmem_isa(void);

/* --- Models ----------------------------------------------------------------------------------------------
 */

typedef struct allmem_model allmem_model;

/* One line, without newline, on what the library does with this model: at load, and when a memory is saved or
 * loaded. May be called from any thread that uses the model. It must not call the library. */
typedef void (*allmem_log_callback)(const char* message, void* user_data);

/* What a model does with its memory. A snapshot belongs to sessions with the same window, sinks, chunk and
 * memory as the one that saved it. */
typedef enum allmem_memory {
  ALLMEM_MEMORY_ON = 0,
  ALLMEM_MEMORY_FROZEN = 1, /* read as training left it, never written; sessions have less state */
  ALLMEM_MEMORY_OFF = 2     /* left out, neither computed nor allocated: the window's attention alone */
} allmem_memory;

/* Which files of a model are compared with the SHA256SUMS beside them, at the price of reading them whole.
 * One that is damaged gives ALLMEM_BAD_MODEL and a sentence with its name. */
typedef enum allmem_check {
  ALLMEM_CHECK_NONE = -1,
  ALLMEM_CHECK_SMALL = 0, /* weights of up to 16 MiB, 64 MiB in all: nothing else shows damage */
  ALLMEM_CHECK_ALL = 1    /* all, as after a download. ALLMEM_NOT_FOUND for a model without SHA256SUMS; of a
                             model in pieces those that are there, SHA256SUMS among them */
} allmem_check;

typedef struct allmem_model_options {
  size_t struct_size;
  allmem_log_callback log; /* NULL: silent */
  void* user_data;         /* passed to log */
  int32_t exact;           /* 0: fast, with 8-bit activations where weights have 4 or 8 bits; 1: float32 */
  int32_t reserved;
  int32_t window; /* tokens; 0: as the file says, else up to 1,048,576. As long as the text: full attention */
  int32_t sinks;  /* tokens; -1: as the file says */
  int32_t chunk;  /* tokens; 0: as the file says. At most the window; only with the memory on */
  int32_t memory; /* an allmem_memory */
  int32_t check;  /* an allmem_check */
  int32_t reserved_too;
} allmem_model_options;

typedef struct allmem_model_info {
  size_t struct_size;
  int32_t vocab_size; /* logits of a token */
  int32_t layers;
  int32_t window, sinks, chunk; /* tokens, as chosen at load; a chunk of 0: the memory is off */
  int32_t has_tokenizer;        /* 0 or 1 */
  int32_t has_chat;             /* 1 when its chat format is known, so that allmem_chat_encode() works */
  int32_t reserved;
  uint64_t weight_bytes; /* read for every token; the memory as training left it is in the file besides */
  uint64_t state_bytes;  /* of one session */
  uint64_t fingerprint;  /* what a snapshot is bound to */
  char quantization[16]; /* "none", "int8", "mixed", "int4", "int4-pure" */
} allmem_model_info;

ALLMEM_API void allmem_model_options_init(allmem_model_options* options);
ALLMEM_API void allmem_model_options_init_sized(allmem_model_options* options, size_t struct_size);
#define allmem_model_options_init(options) \
  allmem_model_options_init_sized((options), sizeof(allmem_model_options))
/* `path`: a directory as `allmem-edge export` writes it, or its .onnx file. The files stay mapped: do not
 * change them while the model lives. A missing tokenizer.json is no error until something needs it. */
ALLMEM_API int32_t allmem_model_load(const char* path, const allmem_model_options* options,
                                     allmem_model** model);

/* A model in pieces, as an app's assets hold it: "model.onnx", the data file that it names
 * ("model.onnx.data") and, for text, "tokenizer.json"; "generation_config.json", "tokenizer_config.json",
 * "special_tokens_map.json" and "config.json" may say which tokens end a text. "added_tokens.json": tokens
 * that "tokenizer.json" must have, too. "chat_format.json": how chats are written; without it ChatML, where
 * the model has its tokens. "SHA256SUMS": what the others are compared with (`check`). */
typedef struct allmem_file {
  const char* name;
  const void* data; /* used by _load_memory: stays yours, readable and unchanged until the model is gone */
  size_t size;
  int fd;          /* used by _load_fds: an open file, which you may close after the call, and where in it */
  uint64_t offset; /* the piece begins: Android's AssetFileDescriptor gives these. Uncompressed. Not on
                      Windows: ALLMEM_UNSUPPORTED */
} allmem_file;
ALLMEM_API int32_t allmem_model_load_memory(const allmem_file* files, size_t file_count,
                                            const allmem_model_options* options, allmem_model** model);
ALLMEM_API int32_t allmem_model_load_fds(const allmem_file* files, size_t file_count,
                                         const allmem_model_options* options, allmem_model** model);
ALLMEM_API void allmem_model_free(allmem_model* model);
/* Set info->struct_size = sizeof *info before. */
ALLMEM_API int32_t allmem_model_get_info(const allmem_model* model, allmem_model_info* info);

/* --- Text ------------------------------------------------------------------------------------------------
 * All of it but allmem_token_is_stop(), and what generates text, gives ALLMEM_NOT_FOUND when the model came
 * without tokenizer.json.
 */

/* Ids of a text. special: 1 turns the text of special tokens ("<|im_end|>") into their ids; use 0 for what
 * people wrote. */
ALLMEM_API int32_t allmem_tokenize(const allmem_model* model, const char* text, size_t text_size,
                                   int32_t special, int32_t* ids, size_t capacity, size_t* count);
/* Text of ids, special tokens left out, incomplete UTF-8 as U+FFFD. Capacity and count are bytes; no NUL is
 * added. */
ALLMEM_API int32_t allmem_detokenize(const allmem_model* model, const int32_t* ids, size_t id_count,
                                     char* text, size_t capacity, size_t* count);
/* What every text of this model begins with, often nothing (BOS, where its makers put it): let a session read
 * these before the first text. Chats have their own beginning. */
ALLMEM_API int32_t allmem_text_prefix(const allmem_model* model, int32_t* ids, size_t capacity,
                                      size_t* count);
/* 1 in `is_stop` when the model ends its text with this token; 0 also for an id that it does not have. */
ALLMEM_API int32_t allmem_token_is_stop(const allmem_model* model, int32_t id, int32_t* is_stop);

/* The bytes of one token, which may be a part of a character. `special` (may be NULL): 1 for one like
 * "<|im_end|>", which no text shows. */
ALLMEM_API int32_t allmem_token_bytes(const allmem_model* model, int32_t id, char* bytes, size_t capacity,
                                      size_t* count, int32_t* special);

/* Turns ids into text one by one, never splitting a UTF-8 character. */
typedef struct allmem_decoder allmem_decoder;
ALLMEM_API int32_t allmem_decoder_create(const allmem_model* model, allmem_decoder** decoder);
/* The text that became complete, often none: NUL-terminated, valid until the decoder's next call. */
ALLMEM_API int32_t allmem_decoder_push(allmem_decoder* decoder, int32_t id, const char** text, size_t* size);
/* What is left at the end, incomplete characters as U+FFFD. */
ALLMEM_API int32_t allmem_decoder_flush(allmem_decoder* decoder, const char** text, size_t* size);
ALLMEM_API void allmem_decoder_free(allmem_decoder* decoder);

typedef struct allmem_message {
  const char* role;    /* "system", "user" or "assistant" */
  const char* content; /* special tokens in it are plain text */
} allmem_message;

/* Ids of messages in the model's chat format, and of the opening of the assistant's answer. `continues`: 1
 * when they follow an answer that the model generated in this session, whose end mark it has not read yet.
 * ALLMEM_UNSUPPORTED when the format is not known, or has no place for such messages in this order. */
ALLMEM_API int32_t allmem_chat_encode(const allmem_model* model, const allmem_message* messages,
                                      size_t message_count, int32_t continues, int32_t* ids, size_t capacity,
                                      size_t* count);

/* --- Sessions --------------------------------------------------------------------------------------------
 */

typedef struct allmem_session allmem_session;

/* Threads of yours in the place of the library's: an engine's pool, a browser's workers. Calls task(argument,
 * i) once for each i < count, on any threads and in any order, the calling one included, and returns when all
 * have returned. Called some hundred times for a token, so it has to hand out tasks within microseconds. It
 * must not throw, and calls nothing of this session. */
typedef void (*allmem_task)(void* argument, size_t i);
typedef void (*allmem_run_tasks)(allmem_task task, void* argument, size_t count, void* user_data);

typedef struct allmem_session_options {
  size_t struct_size;
  int32_t threads;            /* at most 256; 0: one for each fast core of this process */
  allmem_run_tasks run_tasks; /* NULL: the library's threads. `count` is at most `threads` */
  void* user_data;            /* passed to run_tasks */
} allmem_session_options;

ALLMEM_API void allmem_session_options_init(allmem_session_options* options);
ALLMEM_API void allmem_session_options_init_sized(allmem_session_options* options, size_t struct_size);
#define allmem_session_options_init(options) \
  allmem_session_options_init_sized((options), sizeof(allmem_session_options))
ALLMEM_API int32_t allmem_session_create(const allmem_model* model, const allmem_session_options* options,
                                         allmem_session** session);
/* An independent session with the same state, without its marks: to try two answers. */
ALLMEM_API int32_t allmem_session_clone(allmem_session* session, allmem_session** copy);
ALLMEM_API void allmem_session_free(allmem_session* session);

/* Reads tokens. *read (may be NULL) receives how many were read, also when the call is cancelled. */
ALLMEM_API int32_t allmem_session_prefill(allmem_session* session, const int32_t* ids, size_t id_count,
                                          size_t* read);
/* Reads tokens and gives the logits after each of them, [id_count, vocab_size]. Too small a buffer: nothing
 * is read. Cancelled: what was read is written, and `count` says how much that is. */
ALLMEM_API int32_t allmem_session_forward(allmem_session* session, const int32_t* ids, size_t id_count,
                                          float* logits, size_t capacity, size_t* count);
/* The logits after the last token read, [vocab_size]. ALLMEM_INVALID_ARGUMENT when there are none: before the
 * first token, after allmem_session_generate() or _chat(), and after an error. */
ALLMEM_API int32_t allmem_session_logits(allmem_session* session, float* logits, size_t capacity,
                                         size_t* count);

typedef struct allmem_logit_bias {
  int32_t id;
  float bias; /* [-100, 100], or -INFINITY: never this token */
} allmem_logit_bias;

typedef struct allmem_sampling {
  size_t struct_size;
  float temperature;         /* finite, >= 0; 0 takes the most likely token. Default 0.7 */
  int32_t top_k;             /* >= 0; keep the k most likely; 0 keeps all. Default 0 */
  float top_p;               /* (0, 1]; keep the smallest set with this mass. Default 1 */
  float min_p;               /* [0, 1]; drop what is less likely than this times the likeliest. Default 0 */
  float repetition_penalty;  /* [0.1, 10]; 1 is none; a stop token bears none. Default 1 */
  int32_t repetition_window; /* [0, 1048576] tokens. Default 64 */
  uint64_t seed;             /* the same seed and logits give the same tokens on every platform. Default 0:
                                set your own, or the same question gets the same answer every time */
  int64_t max_tokens;        /* of one generation, >= 0. Default 512 */
  const char* const* stop;   /* texts that end a generation and are not shown, at most 256 of 64 KiB; may be
                                NULL. One that is a special token ("<|im_end|>") ends it where the model
                                writes that token */
  size_t stop_count;
  /* Added to the logits of these tokens before anything else; may be NULL. */
  const allmem_logit_bias* logit_bias;
  size_t logit_bias_count;
  int32_t
      speculate; /* 1: where a text repeats what was read or written, several tokens are read at once and
                    those that are drawn count; the text is the same, bit for bit. 0: one by one. Default 1 */
  int32_t reserved;
} allmem_sampling;
ALLMEM_API void allmem_sampling_init(allmem_sampling* sampling);
ALLMEM_API void allmem_sampling_init_sized(allmem_sampling* sampling, size_t struct_size);
#define allmem_sampling_init(sampling) allmem_sampling_init_sized((sampling), sizeof(allmem_sampling))

/* How the model is best drawn from, by its generation_config.json; the defaults where that says nothing. Set
 * struct_size before (_init does). Where a function takes NULL for its sampling, this is what it takes. */
ALLMEM_API int32_t allmem_model_get_sampling(const allmem_model* model, allmem_sampling* sampling);

/* Starts a new sequence of draws for allmem_session_sample(); also sets its repetition window empty. */
ALLMEM_API int32_t allmem_session_set_sampling(allmem_session* session, const allmem_sampling* sampling);
/* Draws the next token from the logits after the last token read. It is not read: pass it to prefill. */
ALLMEM_API int32_t allmem_session_sample(allmem_session* session, int32_t* id);

typedef enum allmem_finish {
  ALLMEM_FINISH_STOP_TOKEN = 1, /* not read, not shown */
  ALLMEM_FINISH_STOP_TEXT = 2,
  ALLMEM_FINISH_MAX_TOKENS = 3,
  ALLMEM_FINISH_CANCELLED = 4, /* by allmem_session_cancel(), or by the callback */
  ALLMEM_FINISH_NO_TOKEN = 5   /* the logit bias or the token filter leaves none that could follow */
} allmem_finish;

typedef struct allmem_generation {
  size_t struct_size;
  int32_t finish;      /* an allmem_finish */
  int32_t prompt_left; /* tokens of the prompt that are not read yet, or never when that was cancelled */
  uint64_t prompt_tokens, generated_tokens; /* read by the session */
  double prefill_seconds, decode_seconds;
  uint64_t drafted_tokens, accepted_tokens; /* read before they were drawn, and drawn then */
} allmem_generation;

/* Receives the text piece by piece, of one token or several: whole characters, `size` bytes, NUL-terminated,
 * valid during the call.
 * Now and then while a long message is turned into tokens, and after every block of tokens while a long
 * prompt is read, it is called with size 0. Return 0 to go on, anything else to end the prefill or the
 * generation as a cancel would: unlike one, that cannot come too early. It must not throw. It may call
 * allmem_session_cancel() and nothing else of this session, and may look at the `generation` that its call
 * was given, whose figures are up to date: for a progress bar. */
typedef int32_t (*allmem_text_callback)(const char* text, size_t size, void* user_data);

/* Tokens of a text as they are drawn, with the model's own log-probabilities: of the softmax of its logits,
 * before bias, penalty, temperature and filters. `best`: the most likely tokens, most likely first. Not
 * called for a token that ends the text. Both callbacks are called on the thread that generates, and may call
 * what a text callback may. They stay with the session, in no clone and no snapshot, until NULL takes them
 * away. */
typedef struct allmem_token_score {
  int32_t id;
  float logprob;
} allmem_token_score;
typedef void (*allmem_token_callback)(allmem_token_score token, const allmem_token_score* best,
                                      size_t best_count, void* user_data);
ALLMEM_API int32_t allmem_session_set_token_callback(allmem_session* session, size_t best_count,
                                                     allmem_token_callback callback, void* user_data);
/* Says before each draw of a text which tokens may follow, a grammar for instance. `last`: the token drawn
 * before, -1 at first. `allowed`: all bits are 1; clear bit i % 32 of word i / 32 to exclude token i. A text
 * for which no token is left ends with ALLMEM_FINISH_NO_TOKEN. */
typedef void (*allmem_token_filter)(int32_t last, uint32_t* allowed, size_t word_count, void* user_data);
ALLMEM_API int32_t allmem_session_set_token_filter(allmem_session* session, allmem_token_filter filter,
                                                   void* user_data);

/* Reads the prompt, then generates. A cancelled prefill gives ALLMEM_CANCELLED; a generation that is stopped,
 * by whatever, gives ALLMEM_OK and says so in `generation` (may be NULL; set its struct_size), which is
 * written in both cases. After ALLMEM_FINISH_CANCELLED the text is unfinished: allmem_session_resume() goes
 * on with it, in another process too if the session was saved, until something else is read. */
ALLMEM_API int32_t allmem_session_generate(allmem_session* session, const int32_t* ids, size_t id_count,
                                           const allmem_sampling* sampling, allmem_text_callback callback,
                                           void* user_data, allmem_generation* generation);
/* The same for messages: encodes only what is new, so that a conversation goes on at the cost of its last
 * message. In a session that has read anything, they begin with the end mark of an answer. Cancelled while
 * they are still being turned into tokens, nothing was read (prompt_tokens and prompt_left are 0) and no text
 * is unfinished, an older one neither: ask again. */
ALLMEM_API int32_t allmem_session_chat(allmem_session* session, const allmem_message* messages,
                                       size_t message_count, const allmem_sampling* sampling,
                                       allmem_text_callback callback, void* user_data,
                                       allmem_generation* generation);
/* Goes on with the unfinished text as if it had never been stopped, with the options it began with. Pieces
 * that were handed out do not come again. ALLMEM_INVALID_ARGUMENT when there is none. */
ALLMEM_API int32_t allmem_session_resume(allmem_session* session, allmem_text_callback callback,
                                         void* user_data, allmem_generation* generation);
/* From any thread: ends a running prefill or generation within one block of tokens. Without effect when none
 * runs. */
ALLMEM_API int32_t allmem_session_cancel(allmem_session* session);

/* frozen: 1 reads the long-term memory but never writes it. What was read before is learned first, also what
 * an unfinished chunk has, which would have left the window before that chunk ends. So a text that somebody
 * pastes is read without forgetting what was told before: freeze, read it, freeze with 0.
 * ALLMEM_INVALID_ARGUMENT for 0 where the model was loaded with ALLMEM_MEMORY_FROZEN. */
ALLMEM_API int32_t allmem_session_freeze(allmem_session* session, int32_t frozen);
/* As new, without marks; what was set stays set: frozen or not, and the sampling. */
ALLMEM_API int32_t allmem_session_reset(allmem_session* session);
/* As new, and every byte that the session held is overwritten, its marks included: nothing that was read can
 * be found in it. What passed through elsewhere is in docs/c-api.md. */
ALLMEM_API int32_t allmem_session_wipe(allmem_session* session);

/* Keeps the present state for allmem_session_undo(): call it before a turn. Of the states kept, the oldest
 * are dropped so that all take at most max_bytes; the newest always stays. One takes about state_bytes. */
ALLMEM_API int32_t allmem_session_mark(allmem_session* session, uint64_t max_bytes);
/* Back to the newest mark, which is used up. Frozen stays frozen. Also ends a poisoning.
 * ALLMEM_INVALID_ARGUMENT when there is no mark. Marks are in no snapshot; load drops them. */
ALLMEM_API int32_t allmem_session_undo(allmem_session* session);

typedef struct allmem_session_info {
  size_t struct_size;   /* set before the call */
  uint64_t position;    /* tokens read */
  uint64_t state_bytes; /* the window and the memory; these parts of it, and some bytes of other things: */
  uint64_t window_bytes, fast_weight_bytes, momentum_bytes, gradient_bytes;
  uint64_t total_bytes; /* with activations and scratch */
  uint64_t mark_bytes;  /* of all states kept by allmem_session_mark() */
  int32_t marks;
  int32_t unfinished; /* 1 when allmem_session_resume() has something to go on with */
  int32_t threads;
  int32_t frozen;
} allmem_session_info;
ALLMEM_API int32_t allmem_session_get_info(allmem_session* session, allmem_session_info* info);

/* Frobenius norms over all matrices and heads of one layer's memory (docs/model.md). */
typedef struct allmem_layer_memory {
  size_t struct_size;
  double drift;    /* ||W - W_0|| / ||W_0||: how far the fast weights are from the model's own */
  double weight;   /* ||W_0|| */
  double momentum; /* ||S||: the size of the last update, made at the end of the last chunk */
  double gradient; /* ||G||: of the next update, as much as the unfinished chunk has in blocks of 32 tokens */
} allmem_layer_memory;
/* Set memory->struct_size before. ALLMEM_INVALID_ARGUMENT for a layer without memory. */
ALLMEM_API int32_t allmem_session_inspect(allmem_session* session, int32_t layer,
                                          allmem_layer_memory* memory);

/* --- Batches: several sessions that read at once ----------------------------------------------------------
 * For a server: most of the time of a token goes into fetching the model's weights, and a batch fetches them
 * once for the tokens of all its sessions. Each session gets what it would get alone: in fast mode the same
 * bits, with `exact` the same but for float rounding.
 */

/* Room to compute in, and threads. Sessions are named in each call, so they come and go as they like, and are
 * used alone between two calls. */
typedef struct allmem_batch allmem_batch;

/* `options`: threads, as a session has them; those of the sessions themselves rest. It keeps the model alive.
 */
ALLMEM_API int32_t allmem_batch_create(const allmem_model* model, const allmem_session_options* options,
                                       allmem_batch** batch);
ALLMEM_API void allmem_batch_free(allmem_batch* batch);

typedef struct allmem_batch_item {
  allmem_session* session; /* of the model that the batch is of; once in a call */
  const int32_t* ids;      /* one token as a rule, or a prompt: tokens of all are read together in any case */
  size_t id_count;
  size_t read;    /* receives how many were read */
  int32_t status; /* receives what allmem_session_prefill() would give for this session alone; the others do
                     not mind. ALLMEM_IN_USE also for a session that came before in this call */
  int32_t reserved;
} allmem_batch_item;

/* allmem_session_prefill() of several sessions at once. allmem_session_logits() and _sample() of each then
 * give what they give after that; allmem_session_cancel() ends one, and the others go on. ALLMEM_OK when
 * every item's status is that; else the first other one, with its sentence in allmem_last_error(). Only where
 * `items` is refused, an allocation fails, a thread or a host's run_tasks, are `read` and `status` not
 * written. */
ALLMEM_API int32_t allmem_batch_prefill(allmem_batch* batch, allmem_batch_item* items, size_t item_count);
/* What the batch computed with is overwritten: activations and logits of all sessions that were in it. */
ALLMEM_API int32_t allmem_batch_wipe(allmem_batch* batch);

/* --- Snapshots: a session's memory, saved ------------------------------------------------------------------
 */

/* All that the session holds but its marks: it goes on from it bit for bit, in another process too, and in
 * the middle of a text. `note` (may be NULL) is yours: at most 1 MiB that come back with it. What is empty in
 * the state is left out, so that the size grows as tokens are read, until the window is full. */
ALLMEM_API int32_t allmem_session_save(allmem_session* session, const void* note, size_t note_size,
                                       void* buffer, size_t capacity, size_t* count);
/* Receives the snapshot piece by piece, of at most 1 MiB each, valid during the call. Return 0 to go on,
 * anything else to give up: the call then gives ALLMEM_IO. It calls nothing of this session. */
typedef int32_t (*allmem_write_callback)(const void* bytes, size_t size, void* user_data);
/* The same bytes to a callback, for those who encrypt them: no copy of the state is made. */
ALLMEM_API int32_t allmem_session_save_to(allmem_session* session, const void* note, size_t note_size,
                                          allmem_write_callback write, void* user_data);
/* Atomic: a crash at any moment leaves the old file or the new one, and what it leaves beside it the next
 * save or load of this path removes; not where a disk knows no file locks (some network and removable ones),
 * as each save has a name of its own there: keep memories on internal storage. Symbolic links are followed;
 * mode, owner and extended attributes of the old file stay. ALLMEM_CONFLICT when somebody else has changed
 * the file since this session was loaded from it or saved to it, and when it could not be loaded into this
 * session: nothing is written. Save under another name, or delete it first to overwrite it. A file that this
 * session has never met is overwritten: load it before the first save, as ALLMEM_NOT_FOUND alone says that
 * there is none. */
ALLMEM_API int32_t allmem_session_save_file(allmem_session* session, const void* note, size_t note_size,
                                            const char* path);
/* Checked wholly before anything changes: on failure the session is what it was. Only a file that changes, or
 * cannot be read, while its state is taken gives ALLMEM_IO and a poisoned session. ALLMEM_UNSUPPORTED when it
 * holds an unfinished text and the model has no tokenizer.json. A file that could not be loaded, whatever the
 * reason but ALLMEM_NOT_FOUND, is not overwritten by this session: saving to it gives ALLMEM_CONFLICT. */
ALLMEM_API int32_t allmem_session_load(allmem_session* session, const void* snapshot, size_t size);
ALLMEM_API int32_t allmem_session_load_file(allmem_session* session, const char* path);
/* Fills all `size` bytes from `offset` of the snapshot on. Return 0; anything else gives ALLMEM_IO. It calls
 * nothing of this session. */
typedef int32_t (*allmem_read_callback)(void* bytes, size_t size, uint64_t offset, void* user_data);
/* The same from a callback, without a copy of the state. It is asked for the snapshot from its beginning to
 * its end, to check it, and then once more for the state, from where that begins to the end, to take it. One
 * that gives something else the second time, or fails then, leaves the session poisoned. */
ALLMEM_API int32_t allmem_session_load_from(allmem_session* session, uint64_t size, allmem_read_callback read,
                                            void* user_data);

typedef struct allmem_snapshot_info {
  size_t struct_size;   /* set before the call */
  uint64_t position;    /* tokens read */
  uint64_t fingerprint; /* of the model that it belongs to */
  uint64_t state_bytes; /* of the session */
  uint32_t format;
  int32_t frozen;
  int32_t exact;      /* of a model that computes in float32 throughout: loaded so, or of such weights */
  int32_t unfinished; /* 1 when it holds an unfinished text */
} allmem_snapshot_info;
/* Looks at a snapshot, whatever its model; `note` receives the caller's note (buffer, capacity, count; all
 * may be NULL and 0). */
ALLMEM_API int32_t allmem_snapshot_inspect(const void* snapshot, size_t size, allmem_snapshot_info* info,
                                           void* note, size_t capacity, size_t* count);
/* The same for a file, without taking its state into memory. */
ALLMEM_API int32_t allmem_snapshot_inspect_file(const char* path, allmem_snapshot_info* info, void* note,
                                                size_t capacity, size_t* count);
/* Removes a saved memory, following links, and all that a killed save left of it, where there are file locks.
 * ALLMEM_NOT_FOUND when there is none. For "forget me", after allmem_session_wipe(). */
ALLMEM_API int32_t allmem_snapshot_delete_file(const char* path);

#ifdef __cplusplus
}
#endif

#endif
