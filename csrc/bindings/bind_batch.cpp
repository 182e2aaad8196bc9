// _core.Batch: sessions that read at once, and texts that are generated at once.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <deque>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/generator.h"
#include "runtime/batch.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

struct BatchHandle {
  explicit BatchHandle(std::unique_ptr<Batch> owned) : batch(std::move(owned)) {}
  std::unique_ptr<Batch> batch;
  std::atomic<bool> busy = false;
};

void require_batch(const Claim& claim) {
  if (!claim.held()) throw InUseError("This batch is in use by another thread; give each its own.");
}

std::unique_ptr<BatchHandle> create(std::shared_ptr<Model> model, int threads) {
  const WithoutGil without;
  return std::make_unique<BatchHandle>(std::make_unique<Batch>(std::move(model), SessionOptions{threads}));
}

using SessionTokens = std::pair<std::shared_ptr<SessionHandle>, py::object>;

// The logits after the last token of each, or what reading alone would have raised.
py::list forward(BatchHandle& handle, const std::vector<SessionTokens>& pairs) {
  const Claim claim(handle.busy);
  require_batch(claim);
  std::vector<std::vector<int32_t>> ids;
  ids.reserve(pairs.size());
  for (const SessionTokens& pair : pairs) ids.push_back(narrow_ids(pair.second));
  py::list results(pairs.size());
  std::deque<ClaimedWriter> writers;
  std::vector<Writer::HandItem> items;
  std::vector<size_t> of_item;
  for (size_t i = 0; i < pairs.size(); ++i) {
    try {
      Writer& writer = *writers.emplace_back(*pairs[i].first);
      writer.forget_cancel();
      items.push_back({.writer = &writer, .ids = ids[i]});
      of_item.push_back(i);
    } catch (const Error& error) {
      results[i] = exception_of(error);
    }
  }
  check_signals();
  {
    const WithoutGil without;
    Writer::read(*handle.batch, items, [](size_t) { return go_on_unless_interrupted(); });
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const Writer::HandItem& item = items[i];
    const std::span<const float> logits = item.writer->logits();
    if (item.error) {
      results[of_item[i]] = exception_of(*item.error);
    } else if (item.read < item.ids.size()) {
      results[of_item[i]] = exception_of(Error(ErrorCode::kCancelled, kReadingCancelled));
    } else {
      results[of_item[i]] = py::array_t<float>(static_cast<py::ssize_t>(logits.size()), logits.data());
    }
  }
  return results;
}

// What was thrown, also by a Python function.
py::object exception_of_any(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    return exception_of(error);
  } catch (const py::error_already_set& error) {
    return error.value();
  }
}

// A text of a batch's step, with what is claimed for it.
struct ClaimedText {
  explicit ClaimedText(GeneratorHandle& of) : claim(of.busy) {
    require(claim);
    writer.emplace(*of.session);
    of.check_text();
  }
  Claim claim;
  std::optional<ClaimedWriter> writer;
};

// One more piece of each text, which may be empty; None of one that is over or cancelled; what it raised.
py::list next(BatchHandle& handle, const std::vector<GeneratorHandle*>& texts) {
  const Claim claim(handle.busy);
  require_batch(claim);
  for (const GeneratorHandle* text : texts) {
    if (text->session) continue;
    throw Error(ErrorCode::kUnsupported, "A batch generates texts of the native runtime's sessions alone.");
  }
  py::list results(texts.size());
  std::deque<ClaimedText> claimed;
  std::vector<Writer::TextItem> items;
  std::vector<size_t> of_item;
  for (size_t i = 0; i < texts.size(); ++i) {
    results[i] = py::none();
    GeneratorHandle& text = *texts[i];
    if (text.stats.finish != FinishReason::kNone || text.is_cancelled()) continue;
    try {
      items.push_back({.writer = &**claimed.emplace_back(text).writer, .hooks = &text.hooks});
      of_item.push_back(i);
    } catch (const Error& error) {
      results[i] = exception_of(error);
    }
  }
  {
    const WithoutGil without;
    Writer::next(*handle.batch, items);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const Writer::TextItem& item = items[i];
    texts[of_item[i]]->note_text();
    if (item.error) {
      results[of_item[i]] = exception_of_any(item.error);
    } else if (item.piece) {
      results[of_item[i]] = py::str(*item.piece);
    }
  }
  return results;
}

}  // namespace

void bind_batch(py::module_& m) {
  py::class_<BatchHandle>(m, "Batch")
      .def(py::init(&create), py::arg("model"), py::arg("threads") = 0)
      .def("forward", &forward, py::arg("pairs"))
      .def("next", &next, py::arg("texts"))
      .def("wipe",
           [](BatchHandle& handle) {
             const Claim claim(handle.busy);
             require_batch(claim);
             const WithoutGil without;
             handle.batch->wipe();
           })
      .def_property_readonly("total_bytes", [](const BatchHandle& h) { return h.batch->total_bytes(); })
      .def_property_readonly("threads", [](const BatchHandle& h) { return h.batch->threads(); });
}

}  // namespace allmem::python
