// What a model directory says of text: tokenizer, special tokens, which tokens end a text, how it is drawn.
// Read once, when the model is loaded, for C, Python and the command line alike.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/checksums.h"
#include "runtime/generate.h"
#include "tokenizer/tokenizer.h"

namespace allmem {

struct ModelText {
  std::shared_ptr<const Tokenizer> tokenizer;  // null: there is no tokenizer.json
  // By their role ("bos_token", "eos_token", ..., and what only this model has: "image_token"), as
  // `transformers` takes them: of tokenizer_config.json; where that has no added_tokens_decoder,
  // special_tokens_map.json counts before it.
  std::map<std::string, std::string> special_tokens;
  // What a text begins with, as `transformers` puts it there: mostly nothing or BOS. The post-processor of
  // tokenizer.json says so, unless add_bos_token of tokenizer_config.json does.
  std::vector<int32_t> prefix;
  // How it is drawn: generation_config.json, else temperature 0.7, no filter and at most 512 tokens.
  // stop_ids: known_ids() of eos_token_id of generation_config.json, else of config.json; the eos_token; and
  // ChatML's <|im_end|> where the tokenizer has it, which ends a turn whatever the configs say.
  GenerateOptions defaults;
};

// What is taken where a model says nothing.
GenerateOptions default_options();

// `vocab_size`: of the model. Throws Error (kBadTokenizer): a file that is damaged, out of its range, or of
// another model, and a token of a text that tokenizer.json lacks and another file has.
ModelText read_model_text(const FindFile& find, int64_t vocab_size);

}  // namespace allmem
