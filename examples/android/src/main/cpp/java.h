// Between C++ and Java: exceptions, objects behind handles, arrays and text.
#pragma once

#include <allmem/allmem.h>
#include <jni.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace java {

// --- What crosses into Java as an exception ---------------------------------------------------------------

struct Failed {
  int32_t status;  // of the library, whose allmem_last_error() has the sentence
};
struct Refused {
  const char* exception;  // "java/lang/..."
  const char* sentence;   // ASCII
};
struct Pending {};  // a Java exception is already on its way

inline void check(int32_t status) {
  if (status != ALLMEM_OK) throw Failed{status};
}

inline void check_pending(JNIEnv* env) {
  if (env->ExceptionCheck()) throw Pending{};
}

inline void require(bool condition, const char* sentence) {
  if (!condition) throw Refused{"java/lang/IllegalArgumentException", sentence};
}

// Set when the library is loaded: the class of the native methods, and what makes an exception of a status.
inline jclass natives;  // a global reference, kept as long as this library is loaded
inline jmethodID failure;

// --- Handles ----------------------------------------------------------------------------------------------

inline std::atomic<jlong> next_handle = 1;  // one sequence, so that a session is never taken for a model

template <class T>
class Handles {
 public:
  jlong add(std::shared_ptr<T> object) {
    const std::lock_guard lock(mutex_);
    const jlong handle = next_handle++;
    open_.emplace(handle, std::move(object));
    return handle;
  }
  // Keeps the object alive for the caller, even if it is closed meanwhile.
  std::shared_ptr<T> get(jlong handle) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(handle);
    if (found == open_.end()) throw Refused{"java/lang/IllegalStateException", "It is closed."};
    return found->second;
  }
  // Null if it was closed before.
  std::shared_ptr<T> remove(jlong handle) {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(handle);
    if (found == open_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(found->second);
    open_.erase(found);
    return object;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<jlong, std::shared_ptr<T>> open_;
};

// --- Values -----------------------------------------------------------------------------------------------

// Deletes a local reference at the end of its scope: a loop must not fill Java's table of them.
template <class T>
class Local {
 public:
  Local(JNIEnv* env, T object) : env_(env), object_(object) {}
  ~Local() { env_->DeleteLocalRef(object_); }
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;
  T get() const { return object_; }

 private:
  JNIEnv* env_;
  T object_;
};

inline jbyteArray to_java(JNIEnv* env, const void* data, size_t size) {
  if (size > static_cast<size_t>(std::numeric_limits<jsize>::max())) throw std::bad_alloc();
  const jbyteArray array = env->NewByteArray(static_cast<jsize>(size));
  if (array == nullptr) throw Pending{};
  env->SetByteArrayRegion(array, 0, static_cast<jsize>(size), static_cast<const jbyte*>(data));
  return array;
}

inline std::string bytes_of(JNIEnv* env, jbyteArray array) {
  require(array != nullptr, "An array is null.");
  std::string bytes(static_cast<size_t>(env->GetArrayLength(array)), '\0');
  env->GetByteArrayRegion(array, 0, static_cast<jsize>(bytes.size()), reinterpret_cast<jbyte*>(bytes.data()));
  return bytes;
}

// Of text that the library takes up to its NUL.
inline std::string text_of(JNIEnv* env, jbyteArray array) {
  std::string text = bytes_of(env, array);
  require(text.find('\0') == std::string::npos, "The text has a NUL character.");
  return text;
}

inline std::vector<std::string> texts_of(JNIEnv* env, jobjectArray array) {
  require(array != nullptr, "An array is null.");
  std::vector<std::string> texts(static_cast<size_t>(env->GetArrayLength(array)));
  for (size_t i = 0; i < texts.size(); ++i) {
    const Local element(env, env->GetObjectArrayElement(array, static_cast<jsize>(i)));
    check_pending(env);
    texts[i] = text_of(env, static_cast<jbyteArray>(element.get()));
  }
  return texts;
}

inline std::vector<jint> ints_of(JNIEnv* env, jintArray array) {
  require(array != nullptr, "An array is null.");
  std::vector<jint> values(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetIntArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return values;
}

inline std::vector<jlong> longs_of(JNIEnv* env, jlongArray array) {
  require(array != nullptr, "An array is null.");
  std::vector<jlong> values(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetLongArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return values;
}

// Asks for the size, then for the values: fewer, if another thread has reset the session in between.
template <class T, class Fill>
std::vector<T> sized(const Fill& fill) {
  size_t count = 0;
  const int32_t status = fill(nullptr, size_t{0}, &count);
  if (status != ALLMEM_BUFFER_TOO_SMALL) check(status);
  std::vector<T> values(count);
  if (count != 0) check(fill(values.data(), values.size(), &count));
  values.resize(count);
  return values;
}

// --- The way out ------------------------------------------------------------------------------------------

inline void raise(JNIEnv* env, const char* exception, const char* sentence) {
  const Local type(env, env->FindClass(exception));
  if (type.get() != nullptr) env->ThrowNew(type.get(), sentence);
}

inline void raise_status(JNIEnv* env, int32_t status) {
  const std::string name = allmem_status_name(status), sentence = allmem_last_error();
  const Local java_name(env, to_java(env, name.data(), name.size()));
  const Local java_sentence(env, to_java(env, sentence.data(), sentence.size()));
  const Local exception(env,
                        env->CallStaticObjectMethod(natives, failure, java_name.get(), java_sentence.get()));
  check_pending(env);
  env->Throw(static_cast<jthrowable>(exception.get()));
}

// Runs the body of a native method; what it throws becomes a Java exception, and the result 0 or null.
template <class Body>
auto guarded(JNIEnv* env, const Body& body) noexcept -> decltype(body()) {
  try {
    try {
      return body();
    } catch (const Failed& failed) {
      raise_status(env, failed.status);
    }
  } catch (const Pending&) {
  } catch (const Refused& refused) {
    raise(env, refused.exception, refused.sentence);
  } catch (const std::bad_alloc&) {
    raise(env, "java/lang/OutOfMemoryError", "There is not enough memory.");
  } catch (...) {
    raise(env, "java/lang/IllegalStateException", "The native code met an error that it does not know.");
  }
  return decltype(body())();
}

}  // namespace java
