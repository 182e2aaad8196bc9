// Text and ids.
#include <algorithm>

#include "capi/handles.h"

using namespace allmem;
using namespace allmem::capi;

namespace {

const SharedModel& shared(const allmem_model* model) {
  require(model != nullptr, "The model is NULL.");
  return *model->shared;
}

// Hands out the decoder's next piece of text.
template <class Next>
int32_t decode(allmem_decoder* decoder, const char** text, size_t* size, const Next& next) {
  return guarded([&]() -> int32_t {
    require(decoder != nullptr, "The decoder is NULL.");
    require(text != nullptr && size != nullptr, "`text` or `size` is NULL.");
    const Claim claim(decoder->busy);
    if (!claim.held()) return fail(ALLMEM_IN_USE, "Another thread is using this decoder.");
    decoder->piece = next();
    *text = decoder->piece.c_str();
    *size = decoder->piece.size();
    return ALLMEM_OK;
  });
}

}  // namespace

int32_t allmem_tokenize(const allmem_model* model, const char* text, size_t text_size, int32_t special,
                        int32_t* ids, size_t capacity, size_t* count) {
  return guarded([&] {
    const std::vector<int32_t> all =
        shared(model).tokenizer()->encode(text_input(text, text_size, "The text"), special != 0);
    return output(std::span<const int32_t>(all), ids, capacity, count);
  });
}

int32_t allmem_detokenize(const allmem_model* model, const int32_t* ids, size_t id_count, char* text,
                          size_t capacity, size_t* count) {
  return guarded([&] {
    const std::string all = shared(model).tokenizer()->decode(input(ids, id_count, "The list of ids"));
    return output(std::span<const char>(all), text, capacity, count);
  });
}

int32_t allmem_text_prefix(const allmem_model* model, int32_t* ids, size_t capacity, size_t* count) {
  return guarded([&] {
    shared(model).tokenizer();
    return output(std::span<const int32_t>(shared(model).text.prefix), ids, capacity, count);
  });
}

int32_t allmem_token_is_stop(const allmem_model* model, int32_t id, int32_t* is_stop) {
  return guarded([&] {
    const auto& stop_ids = shared(model).text.defaults.stop_ids;
    require(is_stop != nullptr, "`is_stop` is NULL.");
    *is_stop = std::ranges::find(stop_ids, id) != stop_ids.end();
    return ALLMEM_OK;
  });
}

int32_t allmem_token_bytes(const allmem_model* model, int32_t id, char* bytes, size_t capacity, size_t* count,
                           int32_t* special) {
  return guarded([&] {
    const Tokenizer& tokenizer = *shared(model).tokenizer();
    const int32_t status = output(std::span(tokenizer.token_bytes(id)), bytes, capacity, count);
    if (status == ALLMEM_OK && special != nullptr) *special = tokenizer.is_special(id);
    return status;
  });
}

int32_t allmem_decoder_create(const allmem_model* model, allmem_decoder** decoder) {
  return guarded([&] {
    const auto& tokenizer = shared(model).tokenizer();
    require(decoder != nullptr, "`decoder` is NULL; it receives the decoder.");
    *decoder = new allmem_decoder{
        .decoder = StreamDecoder(tokenizer), .vocab_size = tokenizer->vocab_size(), .piece = {}};
    return ALLMEM_OK;
  });
}

int32_t allmem_decoder_push(allmem_decoder* decoder, int32_t id, const char** text, size_t* size) {
  return decode(decoder, text, size, [&] {
    if (id < 0 || id >= decoder->vocab_size) {
      throw Error(ErrorCode::kInvalidArgument, "Token " + std::to_string(id) +
                                                   " is outside the vocabulary of " +
                                                   std::to_string(decoder->vocab_size) + " tokens.");
    }
    return decoder->decoder.push(id);
  });
}

int32_t allmem_decoder_flush(allmem_decoder* decoder, const char** text, size_t* size) {
  return decode(decoder, text, size, [&] { return decoder->decoder.flush(); });
}

void allmem_decoder_free(allmem_decoder* decoder) { delete decoder; }

int32_t allmem_chat_encode(const allmem_model* model, const allmem_message* messages, size_t message_count,
                           int32_t continues, int32_t* ids, size_t capacity, size_t* count) {
  return guarded([&] {
    const std::vector<int32_t> all = encode_messages(
        shared(model), input(messages, message_count, "The list of messages"), continues != 0);
    return output(std::span<const int32_t>(all), ids, capacity, count);
  });
}

namespace allmem::capi {

std::vector<int32_t> encode_messages(const SharedModel& model, std::span<const allmem_message> messages,
                                     bool continues, const std::function<bool()>& go_on) {
  std::vector<ChatMessage> checked;
  for (const allmem_message& message : messages) {
    require(message.role != nullptr && message.content != nullptr, "A message's role or content is NULL.");
    checked.push_back({message.role, message.content});
  }
  return model.chat_format().encode(checked, continues, go_on);
}

}  // namespace allmem::capi
