// Files that are no model, graphs with something wrong, and what a file says of itself.
#pragma once

#include "bad_model_parts.h"

namespace allmem::test {

inline void BadModels::add_graphs() {
  // --- files that are no model ---
  const std::string whole = complete().build();
  file("nothing", "", kBad, "no graph");
  file("a page in place of the file", "<!DOCTYPE html><html><body>404 Not Found</body></html>", kBad,
       "damaged");
  file("a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2576\n", kBad,
       "damaged");
  file("a zip archive", std::string("PK\3\4\x14\0\0\0\x08\0", 10) + raw(40), kBad, "damaged");
  file("zeros", std::string(4096, '\0'), kBad, "damaged");
  file("only metadata", OnnxBuilder().defaults().build().substr(0, 2), kBad, "no graph");
  file("cut in the middle", whole.substr(0, whole.size() / 2), kBad, "damaged");
  file("without its last byte", whole.substr(0, whole.size() - 1), kBad, "damaged");
  file("with one byte more", whole + "\x0A", kBad, "damaged");
  file("two graphs", whole + whole, kBad, "two graphs");
  file("a length beyond the file", "\x3A\xFF\xFF\xFF\xFF\x7F", kBad, "damaged");
  file("a number of eleven bytes", "\x08" + std::string(11, '\xFF'), kBad, "damaged");
  file("a group, which protobuf gave up", "\x0B\x0C", kBad, "damaged");

  // --- a graph that loads, and something wrong ---
  graph(
      "initializer without name", [](auto& b) { b.tensor(tensor_bytes("", kFloat, {1}, raw(4))); }, kBad,
      "without a name");
  graph(
      "two initializers of one name", [](auto& b) { b.floats("table", {1}, {1}); }, kBad, "table");
  graph(
      "too few bytes", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {2}, raw(4))); }, kBad, "need 8");
  graph(
      "too many bytes", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {2}, raw(12))); }, kBad,
      "has 12 bytes");
  graph(
      "negative dimension", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {-2}, raw(8))); }, kBad,
      "negative");
  graph(
      "huge dimension", [](auto& b) { b.tensor(tensor_bytes("w", kFloat, {INT64_MAX}, raw(8))); }, kBad,
      "too many elements");
  graph(
      "overflowing product",
      [](auto& b) {
        b.tensor(tensor_bytes("w", kFloat, {1ll << 32, 1ll << 32, 4}, raw(8)));
      },
      kBad, "too many elements");
  graph(
      "product that wraps to the right size",
      [](auto& b) {
        b.tensor(tensor_bytes("w", kFloat, {1ll << 62, 4, 2}, raw(0)));
      },
      kBad, "too many elements");
  graph(
      "nine dimensions",
      [](auto& b) { b.tensor(tensor_bytes("w", kFloat, std::vector<int64_t>(9, 1), raw(4))); }, kBad,
      "8 dimensions");
  graph(
      "unknown element type", [](auto& b) { b.tensor(tensor_bytes("w", 99, {1}, raw(4))); }, kUnsupported,
      "type 99");
  graph(
      "string tensor", [](auto& b) { b.tensor(tensor_bytes("w", 8, {1}, raw(4))); }, kUnsupported, "type 8");
  graph(
      "sparse initializer", [](auto& b) { b.raw_graph_field(15, ""); }, kUnsupported, "sparse");
  graph(
      "node without operator", [](auto& b) { b.node("", {"table"}, {"y"}); }, kBad, "without an operator");
  graph(
      "node without output",
      [](auto& b) {
        b.node("Add", {"table", "table"}, {});
      },
      kBad, "no output");
  graph(
      "node with an empty output only",
      [](auto& b) {
        b.node("Add", {"table", "table"}, {""});
      },
      kBad, "no output");
  logits(
      "logits as an output that the operator does not have",
      [](auto& b) {
        b.node("Neg", {"h"}, {"other", "logits"});
      },
      kBad, "no node produces 'logits'");
  graph(
      "output named like an initializer", [](auto& b) { b.node("Neg", {"logits"}, {"table"}); }, kBad,
      "already taken");
  graph(
      "output named like an input", [](auto& b) { b.node("Neg", {"logits"}, {"input_ids"}); }, kBad,
      "already taken");
  graph(
      "one output of two nodes", [](auto& b) { b.node("Neg", {"table"}, {"logits"}); }, kBad,
      "already taken");
  graph(
      "input that nothing makes", [](auto& b) { b.node("Neg", {"ghost"}, {"y"}, {}, "", "haunted"); }, kBad,
      "haunted");
  graph(
      "node that reads its own output", [](auto& b) { b.node("Neg", {"y"}, {"y"}); }, kBad, "cycle");
  graph(
      "cycle of two nodes", [](auto& b) { b.node("Neg", {"b"}, {"a"}).node("Neg", {"a"}, {"b"}); }, kBad,
      "cycle");
  graph(
      "attribute without name", [](auto& b) { b.node("Neg", {"table"}, {"y"}, {Attr::i("", 1)}); }, kBad,
      "without a name");
  graph(
      "attribute given twice",
      [](auto& b) {
        b.node("Neg", {"table"}, {"y"}, {Attr::i("a", 1), Attr::i("a", 2)});
      },
      kBad, "twice");
  graph(
      "two inputs of one name", [](auto& b) { b.input("input_ids", kInt64, {kT}); }, kBad,
      "two graph inputs");
  graph(
      "input without name", [](auto& b) { b.input("", kInt64, {}); }, kBad, "without a name");
  graph(
      "two outputs of one name",
      [](auto& b) {
        b.output("logits", kFloat, {kT, 4});
      },
      kBad, "two graph outputs");
  graph(
      "output that nothing makes", [](auto& b) { b.output("ghost", kFloat, {}); }, kBad, "ghost");
  graph(
      "function without name", [](auto& b) { b.function("x", ""); }, kBad, "function");
  graph(
      "node that is no message", [](auto& b) { b.raw_graph_field(1, "\xFF\xFF\xFF"); }, kBad, "damaged");
  graph(
      "tensor that is no message", [](auto& b) { b.raw_graph_field(5, "\x0A\xFF\xFF\xFF\xFF\x0F"); }, kBad,
      "damaged");
  graph(
      "field number 0", [](auto& b) { b.raw_graph_field(1, std::string("\0\1", 2)); }, kBad, "damaged");
  graph(
      "data in another file, when there is none",
      [](auto& b) {
        b.external("w", kFloat, {2}, {{"location", "../../etc/passwd"}, {"offset", "0"}, {"length", "8"}});
      },
      kBad, "'w'");
  graph(
      "a default value for the ids", [](auto& b) { b.ints("input_ids", {1}); }, kBad, "default value");
  graph(
      "an unknown location for data",
      [](auto& b) {
        std::string message = tensor_bytes("w", kFloat, {1}, raw_bytes<float>({1}));
        protozero::pbf_writer(message).add_enum(14, 7);
        b.tensor(message);
      },
      kBad, "unknown data_location");

  // --- what the file says of itself ---
  const auto said = [&](const char* what, OnnxBuilder b, Refusal refusal, const char* says) {
    b.input("input_ids", kInt64, {kT}).output("logits", kFloat, {kT, 4});
    b.floats("table", {4, 4}, std::vector<float>(16)).node("Gather", {"table", "input_ids"}, {"logits"});
    file(what, b.build(), refusal, says);
  };
  said("no format", OnnxBuilder().opset("", 23), kBad, "not an AllMem model");
  said("a format of the future", OnnxBuilder().opset("", 23).metadata("allmem.format", "2"), kUnsupported,
       "update");
  said("an operator set of the past", OnnxBuilder().opset("", 12).metadata("allmem.format", "1"),
       kUnsupported, "version 12");
  said("allmem operators of the future",
       OnnxBuilder().opset("", 23).opset("allmem", 2).metadata("allmem.format", "1"), kUnsupported,
       "version 2");
  said("no operator set", OnnxBuilder().metadata("allmem.format", "1"), kBad, "which version");
  said("a negative window", OnnxBuilder().defaults().metadata("allmem.window", "-4"), kBad,
       "not a whole number");
  said("a window that is no number", OnnxBuilder().defaults().metadata("allmem.window", "4k"), kBad,
       "not a whole number");
  said("more layers than 31 bits count", OnnxBuilder().defaults().metadata("allmem.layers", "4294967297"),
       kBad, "not a whole number");
  said("a chunk beyond 64 bits", OnnxBuilder().defaults().metadata("allmem.chunk", "18446744073709551616"),
       kBad, "not a whole number");

  // --- inputs and outputs of the graph ---
  const auto signature = [&](const char* what, const Spoil& spoil, Refusal refusal, const char* says) {
    OnnxBuilder b;
    b.defaults()
        .floats("table", {4, 4}, std::vector<float>(16))
        .node("Gather", {"table", "input_ids"}, {"logits"});
    spoil(b);
    file(what, b.build(), refusal, says);
  };
  signature(
      "no ids",
      [](auto& b) {
        b.output("logits", kFloat, {kT, 4});
      },
      kBad, "input_ids");
  signature(
      "ids of 32 bits",
      [](auto& b) {
        b.input("input_ids", kInt32, {kT}).output("logits", kFloat, {kT, 4});
      },
      kBad, "must be int64");
  signature(
      "ids in two dimensions",
      [](auto& b) {
        b.input("input_ids", kInt64, {1, kT}).output("logits", kFloat, {kT, 4});
      },
      kBad, "shape [T]");
  signature(
      "seven tokens at a time",
      [](auto& b) {
        b.input("input_ids", kInt64, {7}).output("logits", kFloat, {7, 4});
      },
      kUnsupported, "fixed number of tokens (7)");
  signature(
      "no logits", [](auto& b) { b.input("input_ids", kInt64, {kT}); }, kBad, "no output 'logits'");
}

}  // namespace allmem::test
