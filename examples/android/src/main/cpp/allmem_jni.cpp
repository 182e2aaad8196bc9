// The native methods of org.allmem.AllMemNative, over allmem.h.
//
// The library calls back on the thread that called it, which is Java's own: no thread is ever attached.
// Handles are numbers looked up here, so that a closed or an invented one is an exception and not a crash.
// All text is UTF-8 in byte arrays: JNI's "modified UTF-8" strings break emoji and NUL.
#include <allmem/allmem.h>
#include <jni.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "java.h"

namespace {

using namespace java;

jclass answer, information;  // global references, kept as long as this library is loaded
jmethodID new_answer, new_information, piece, progress, write_bytes, read_bytes;

// --- Models and sessions
// ------------------------------------------------------------------------------------

struct Model {
  allmem_model* handle;
  explicit Model(allmem_model* model) : handle(model) {}
  ~Model() { allmem_model_free(handle); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
};

struct Session {
  allmem_session* handle;
  std::atomic<bool> closed = false;
  explicit Session(allmem_session* session) : handle(session) {}
  ~Session() { allmem_session_free(handle); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

Handles<Model> models;
Handles<Session> sessions;

// --- The methods ------------------------------------------------------------------------------------------

allmem_model_options options_of(jint window, jint memory, jboolean whole_check) {
  allmem_model_options options;
  allmem_model_options_init(&options);
  options.window = window;
  options.memory = memory;
  if (whole_check) options.check = ALLMEM_CHECK_ALL;
  return options;
}

jlong load_model(JNIEnv* env, jclass, jbyteArray path, jint window, jint memory, jboolean whole_check) {
  return guarded(env, [&] {
    const allmem_model_options options = options_of(window, memory, whole_check);
    allmem_model* model = nullptr;
    check(allmem_model_load(text_of(env, path).c_str(), &options, &model));
    return models.add(std::make_shared<Model>(model));
  });
}

jlong load_model_fds(JNIEnv* env, jclass, jobjectArray names, jintArray fds, jlongArray offsets,
                     jlongArray sizes, jint window, jint memory, jboolean whole_check) {
  return guarded(env, [&] {
    const std::vector<std::string> all_names = texts_of(env, names);
    const std::vector<jint> all_fds = ints_of(env, fds);
    const std::vector<jlong> all_offsets = longs_of(env, offsets), all_sizes = longs_of(env, sizes);
    require(all_fds.size() == all_names.size() && all_offsets.size() == all_names.size() &&
                all_sizes.size() == all_names.size(),
            "Names, file descriptors, offsets and sizes are not equally many.");
    std::vector<allmem_file> files;
    for (size_t i = 0; i < all_names.size(); ++i) {
      require(all_offsets[i] >= 0 && all_sizes[i] >= 0, "An offset or a size is negative.");
      files.push_back({all_names[i].c_str(), nullptr, static_cast<size_t>(all_sizes[i]), all_fds[i],
                       static_cast<uint64_t>(all_offsets[i])});
    }
    const allmem_model_options options = options_of(window, memory, whole_check);
    allmem_model* model = nullptr;
    check(allmem_model_load_fds(files.data(), files.size(), &options, &model));
    return models.add(std::make_shared<Model>(model));
  });
}

void close_model(JNIEnv* env, jclass, jlong model) {
  guarded(env, [&] { models.remove(model); });
}

jlong state_bytes(JNIEnv* env, jclass, jlong model) {
  return guarded(env, [&] {
    allmem_model_info info;
    info.struct_size = sizeof info;
    check(allmem_model_get_info(models.get(model)->handle, &info));
    return static_cast<jlong>(info.state_bytes);
  });
}

// temperature, topK, topP, minP, repetitionPenalty, repetitionWindow
jfloatArray sampling(JNIEnv* env, jclass, jlong model) {
  return guarded(env, [&] {
    allmem_sampling own;
    allmem_sampling_init(&own);
    check(allmem_model_get_sampling(models.get(model)->handle, &own));
    const jfloat values[] = {
        own.temperature, static_cast<jfloat>(own.top_k), own.top_p,
        own.min_p,       own.repetition_penalty,         static_cast<jfloat>(own.repetition_window)};
    constexpr auto count = static_cast<jsize>(std::size(values));
    const jfloatArray array = env->NewFloatArray(count);
    if (array == nullptr) throw Pending{};
    env->SetFloatArrayRegion(array, 0, count, values);
    return array;
  });
}

jintArray tokenize(JNIEnv* env, jclass, jlong model, jbyteArray text) {
  return guarded(env, [&] {
    const std::shared_ptr<Model> open = models.get(model);
    const std::string utf8 = bytes_of(env, text);
    const std::vector<int32_t> ids = sized<int32_t>([&](int32_t* values, size_t capacity, size_t* count) {
      return allmem_tokenize(open->handle, utf8.data(), utf8.size(), 0, values, capacity, count);
    });
    const jintArray array = env->NewIntArray(static_cast<jsize>(ids.size()));  // no more than bytes of text
    if (array == nullptr) throw Pending{};
    env->SetIntArrayRegion(array, 0, static_cast<jsize>(ids.size()), ids.data());
    return array;
  });
}

jbyteArray detokenize(JNIEnv* env, jclass, jlong model, jintArray ids) {
  return guarded(env, [&] {
    const std::shared_ptr<Model> open = models.get(model);
    const std::vector<jint> all = ints_of(env, ids);
    const std::vector<char> text = sized<char>([&](char* values, size_t capacity, size_t* count) {
      return allmem_detokenize(open->handle, all.data(), all.size(), values, capacity, count);
    });
    return to_java(env, text.data(), text.size());
  });
}

jlong create_session(JNIEnv* env, jclass, jlong model, jint threads) {
  return guarded(env, [&] {
    allmem_session_options options;
    allmem_session_options_init(&options);
    options.threads = threads;
    allmem_session* session = nullptr;
    check(allmem_session_create(models.get(model)->handle, &options, &session));
    return sessions.add(std::make_shared<Session>(session));
  });
}

void close_session(JNIEnv* env, jclass, jlong session) {
  guarded(env, [&] {
    const std::shared_ptr<Session> open = sessions.remove(session);
    if (open == nullptr) return;
    open->closed = true;  // seen by on_piece() even if the cancel comes before chat has begun
    allmem_session_cancel(open->handle);
  });
}

struct Chat {
  JNIEnv* env;
  jobject pieces;
  const Session& session;
  allmem_generation result;
};

int32_t on_piece(const char* text, size_t size, void* user_data) {
  const auto& [env, pieces, session, so_far] = *static_cast<const Chat*>(user_data);
  if (session.closed) return 1;
  if (pieces == nullptr) return 0;
  env->CallVoidMethod(pieces, progress, static_cast<jlong>(so_far.prompt_tokens),
                      static_cast<jlong>(so_far.prompt_left), static_cast<jlong>(so_far.generated_tokens));
  if (env->ExceptionCheck()) return 1;
  const Local utf8(env, env->NewByteArray(static_cast<jsize>(size)));
  if (utf8.get() == nullptr) return 1;  // the exception is pending
  env->SetByteArrayRegion(utf8.get(), 0, static_cast<jsize>(size), reinterpret_cast<const jbyte*>(text));
  const bool go_on = env->CallBooleanMethod(pieces, piece, utf8.get()) == JNI_TRUE;
  return env->ExceptionCheck() || !go_on ? 1 : 0;
}

// What `write` generates, through on_piece(), as an Answer.
template <class Write>
jobject stream(JNIEnv* env, const Session& open, jobject pieces, const Write& write) {
  Chat call = {env, pieces, open, {}};
  call.result.struct_size = sizeof call.result;
  const int32_t status = write(on_piece, &call, &call.result);
  check_pending(env);  // what a piece() threw
  if (status != ALLMEM_CANCELLED) check(status);
  const jobject figures = env->NewObject(answer, new_answer, static_cast<jint>(call.result.finish),
                                         static_cast<jlong>(call.result.prompt_tokens),
                                         static_cast<jlong>(call.result.prompt_left),
                                         static_cast<jlong>(call.result.generated_tokens),
                                         call.result.prefill_seconds, call.result.decode_seconds);
  check_pending(env);
  return figures;
}

jobject chat(JNIEnv* env, jclass, jlong session, jobjectArray messages, jfloat temperature, jint top_k,
             jfloat top_p, jfloat min_p, jfloat repetition_penalty, jint repetition_window, jlong seed,
             jlong max_tokens, jobjectArray stop, jobject pieces) {
  return guarded(env, [&] {
    const std::shared_ptr<Session> open = sessions.get(session);
    const std::vector<std::string> texts = texts_of(env, messages);
    require(texts.size() % 2 == 0, "Roles and contents are not equally many.");
    std::vector<allmem_message> all;
    for (size_t i = 0; i < texts.size(); i += 2) all.push_back({texts[i].c_str(), texts[i + 1].c_str()});
    allmem_sampling options;
    allmem_sampling_init(&options);
    options.temperature = temperature;
    options.top_k = top_k;
    options.top_p = top_p;
    options.min_p = min_p;
    options.repetition_penalty = repetition_penalty;
    options.repetition_window = repetition_window;
    options.seed = static_cast<uint64_t>(seed);
    options.max_tokens = max_tokens;
    const std::vector<std::string> stop_texts = texts_of(env, stop);
    std::vector<const char*> stops;
    for (const std::string& text : stop_texts) stops.push_back(text.c_str());
    options.stop = stops.data();
    options.stop_count = stops.size();
    return stream(env, *open, pieces, [&](auto... callback) {
      return allmem_session_chat(open->handle, all.data(), all.size(), &options, callback...);
    });
  });
}

jobject resume(JNIEnv* env, jclass, jlong session, jobject pieces) {
  return guarded(env, [&] {
    const std::shared_ptr<Session> open = sessions.get(session);
    return stream(env, *open, pieces,
                  [&](auto... callback) { return allmem_session_resume(open->handle, callback...); });
  });
}

void cancel(JNIEnv* env, jclass, jlong session) {
  guarded(env, [&] { check(allmem_session_cancel(sessions.get(session)->handle)); });
}

jobject info(JNIEnv* env, jclass, jlong session) {
  return guarded(env, [&] {
    allmem_session_info info;
    info.struct_size = sizeof info;
    check(allmem_session_get_info(sessions.get(session)->handle, &info));
    const jobject object =
        env->NewObject(information, new_information, static_cast<jlong>(info.position),
                       static_cast<jlong>(info.state_bytes), static_cast<jlong>(info.total_bytes),
                       static_cast<jlong>(info.mark_bytes), static_cast<jint>(info.marks),
                       static_cast<jboolean>(info.unfinished != 0), static_cast<jboolean>(info.frozen != 0));
    check_pending(env);
    return object;
  });
}

void mark(JNIEnv* env, jclass, jlong session, jlong max_bytes) {
  guarded(env, [&] {
    require(max_bytes >= 0, "The bytes that marks may take are negative.");
    check(allmem_session_mark(sessions.get(session)->handle, static_cast<uint64_t>(max_bytes)));
  });
}

void undo(JNIEnv* env, jclass, jlong session) {
  guarded(env, [&] { check(allmem_session_undo(sessions.get(session)->handle)); });
}

void freeze(JNIEnv* env, jclass, jlong session, jboolean frozen) {
  guarded(env, [&] { check(allmem_session_freeze(sessions.get(session)->handle, frozen)); });
}

void reset(JNIEnv* env, jclass, jlong session) {
  guarded(env, [&] { check(allmem_session_reset(sessions.get(session)->handle)); });
}

void wipe(JNIEnv* env, jclass, jlong session) {
  guarded(env, [&] { check(allmem_session_wipe(sessions.get(session)->handle)); });
}

void save(JNIEnv* env, jclass, jlong session, jbyteArray path) {
  guarded(env, [&] {
    check(allmem_session_save_file(sessions.get(session)->handle, nullptr, 0, text_of(env, path).c_str()));
  });
}

void load(JNIEnv* env, jclass, jlong session, jbyteArray path) {
  guarded(env, [&] {
    check(allmem_session_load_file(sessions.get(session)->handle, text_of(env, path).c_str()));
  });
}

// A Sink or a Source of Java's, while a snapshot is written to it or read from it.
struct Stream {
  JNIEnv* env;
  jobject object;
};

int32_t on_write(const void* bytes, size_t size, void* user_data) {
  const auto& [env, sink] = *static_cast<const Stream*>(user_data);
  const Local array(env, env->NewByteArray(static_cast<jsize>(size)));
  if (array.get() == nullptr) return 1;  // the exception is pending
  env->SetByteArrayRegion(array.get(), 0, static_cast<jsize>(size), static_cast<const jbyte*>(bytes));
  env->CallVoidMethod(sink, write_bytes, array.get());
  return env->ExceptionCheck() ? 1 : 0;
}

int32_t on_read(void* bytes, size_t size, uint64_t offset, void* user_data) {
  const auto& [env, source] = *static_cast<const Stream*>(user_data);
  constexpr size_t kAtOnce = size_t{1} << 20;
  for (size_t done = 0; done < size;) {
    const auto part = static_cast<jsize>(std::min(kAtOnce, size - done));
    const Local array(env, env->NewByteArray(part));
    if (array.get() == nullptr) return 1;  // the exception is pending
    env->CallVoidMethod(source, read_bytes, array.get(), static_cast<jlong>(offset + done));
    if (env->ExceptionCheck()) return 1;
    env->GetByteArrayRegion(array.get(), 0, part, static_cast<jbyte*>(bytes) + done);
    done += static_cast<size_t>(part);
  }
  return 0;
}

void save_to(JNIEnv* env, jclass, jlong session, jobject sink) {
  guarded(env, [&] {
    require(sink != nullptr, "The sink is null.");
    Stream stream = {env, sink};
    const int32_t status =
        allmem_session_save_to(sessions.get(session)->handle, nullptr, 0, on_write, &stream);
    check_pending(env);  // what write() threw
    check(status);
  });
}

void load_from(JNIEnv* env, jclass, jlong session, jlong size, jobject source) {
  guarded(env, [&] {
    require(size >= 0, "The size is negative.");
    require(source != nullptr, "The source is null.");
    Stream stream = {env, source};
    const int32_t status = allmem_session_load_from(sessions.get(session)->handle,
                                                    static_cast<uint64_t>(size), on_read, &stream);
    check_pending(env);  // what read() threw
    check(status);
  });
}

void delete_file(JNIEnv* env, jclass, jbyteArray path) {
  guarded(env, [&] { check(allmem_snapshot_delete_file(text_of(env, path).c_str())); });
}

jbyteArray snapshot(JNIEnv* env, jclass, jlong session) {
  return guarded(env, [&] {
    const std::shared_ptr<Session> open = sessions.get(session);
    const std::vector<char> bytes = sized<char>([&](char* buffer, size_t capacity, size_t* count) {
      return allmem_session_save(open->handle, nullptr, 0, buffer, capacity, count);
    });
    return to_java(env, bytes.data(), bytes.size());
  });
}

void restore(JNIEnv* env, jclass, jlong session, jbyteArray snapshot) {
  guarded(env, [&] {
    const std::shared_ptr<Session> open = sessions.get(session);
    const std::string bytes = bytes_of(env, snapshot);
    check(allmem_session_load(open->handle, bytes.data(), bytes.size()));
  });
}

template <class Function>
JNINativeMethod method(const char* name, const char* signature, Function function) {
  return {const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function)};
}

jclass global_class(JNIEnv* env, const char* name) {
  const Local found(env, env->FindClass(name));
  check_pending(env);
  return static_cast<jclass>(env->NewGlobalRef(found.get()));
}

}  // namespace

// Registered by name and signature, so that a declaration that does not fit fails here and not at its first
// call.
JNIEXPORT jint JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK) return JNI_ERR;
  const JNINativeMethod methods[] = {
      method("loadModel", "([BIIZ)J", load_model),
      method("loadModel", "([[B[I[J[JIIZ)J", load_model_fds),
      method("closeModel", "(J)V", close_model),
      method("stateBytes", "(J)J", state_bytes),
      method("sampling", "(J)[F", sampling),
      method("tokenize", "(J[B)[I", tokenize),
      method("detokenize", "(J[I)[B", detokenize),
      method("createSession", "(JI)J", create_session),
      method("closeSession", "(J)V", close_session),
      method("chat", "(J[[BFIFFFIJJ[[BLorg/allmem/AllMemNative$Pieces;)Lorg/allmem/AllMemNative$Answer;",
             chat),
      method("resume", "(JLorg/allmem/AllMemNative$Pieces;)Lorg/allmem/AllMemNative$Answer;", resume),
      method("cancel", "(J)V", cancel),
      method("info", "(J)Lorg/allmem/AllMemNative$Info;", info),
      method("mark", "(JJ)V", mark),
      method("undo", "(J)V", undo),
      method("freeze", "(JZ)V", freeze),
      method("reset", "(J)V", reset),
      method("wipe", "(J)V", wipe),
      method("save", "(J[B)V", save),
      method("load", "(J[B)V", load),
      method("save", "(JLorg/allmem/AllMemNative$Sink;)V", save_to),
      method("load", "(JJLorg/allmem/AllMemNative$Source;)V", load_from),
      method("delete", "([B)V", delete_file),
      method("snapshot", "(J)[B", snapshot),
      method("restore", "(J[B)V", restore),
  };
  const auto loaded = guarded(env, [&]() -> jint {
    natives = global_class(env, "org/allmem/AllMemNative");
    answer = global_class(env, "org/allmem/AllMemNative$Answer");
    information = global_class(env, "org/allmem/AllMemNative$Info");
    failure = env->GetStaticMethodID(natives, "failure", "([B[B)Ljava/lang/Throwable;");
    check_pending(env);
    new_answer = env->GetMethodID(answer, "<init>", "(IJJJDD)V");
    check_pending(env);
    new_information = env->GetMethodID(information, "<init>", "(JJJJIZZ)V");
    check_pending(env);
    const Local pieces(env, env->FindClass("org/allmem/AllMemNative$Pieces"));
    check_pending(env);
    piece = env->GetMethodID(pieces.get(), "piece", "([B)Z");
    check_pending(env);
    progress = env->GetMethodID(pieces.get(), "progress", "(JJJ)V");
    check_pending(env);
    const Local sink(env, env->FindClass("org/allmem/AllMemNative$Sink"));
    check_pending(env);
    write_bytes = env->GetMethodID(sink.get(), "write", "([B)V");
    check_pending(env);
    const Local source(env, env->FindClass("org/allmem/AllMemNative$Source"));
    check_pending(env);
    read_bytes = env->GetMethodID(source.get(), "read", "([BJ)V");
    check_pending(env);
    const jint count = static_cast<jint>(sizeof methods / sizeof *methods);
    return env->RegisterNatives(natives, methods, count) == JNI_OK ? JNI_VERSION_1_6 : JNI_ERR;
  });
  return loaded == 0 ? JNI_ERR : loaded;  // 0: an exception is pending, and says why
}
