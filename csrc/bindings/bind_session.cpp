// _core.Session: reading tokens and looking at the state.
#include <pybind11/numpy.h>

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/generate.h"
#include "runtime/snapshot.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

using Ids = py::array_t<int64_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

// Checks every id before the first block runs, so that a refused call has read nothing.
std::vector<int32_t> checked_ids(const Ids& ids, int64_t vocab_size) {
  if (ids.ndim() != 1 || ids.size() == 0) {
    throw Error(ErrorCode::kInvalidArgument, "The tokens must be a list of at least one id.");
  }
  std::vector<int32_t> checked(static_cast<size_t>(ids.size()));
  for (size_t i = 0; i < checked.size(); ++i) {
    const int64_t id = ids.data()[i];
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorCode::kInvalidArgument,
                  "Token " + std::to_string(id) + " at index " + std::to_string(i) +
                      " is outside the model's vocabulary of " + std::to_string(vocab_size) + " tokens.");
    }
    checked[i] = static_cast<int32_t>(id);
  }
  return checked;
}

Floats forward(SessionHandle& handle, const Ids& array, bool last_only) {
  InUse session(handle);
  handle.cancelled = false;
  const auto vocab = static_cast<size_t>(session->model().info().vocab_size);
  const std::vector<int32_t> ids = checked_ids(array, static_cast<int64_t>(vocab));
  const size_t rows = last_only ? 1 : ids.size();
  if (rows > std::numeric_limits<size_t>::max() / sizeof(float) / vocab) throw std::bad_alloc();
  Floats result({rows, vocab});
  const std::span<float> logits(result.mutable_data(), rows * vocab);
  for (size_t begin = 0; begin < ids.size(); begin += kPrefillBlock) {
    const auto block = std::span(ids).subspan(begin, std::min(kPrefillBlock, ids.size() - begin));
    const bool last = begin + block.size() == ids.size();
    check_signals();
    if (handle.cancelled)
      throw Error(ErrorCode::kCancelled, "Reading was cancelled between two blocks of tokens.");
    const py::gil_scoped_release release;
    if (!last_only) {
      session->forward(block, LogitsFor::kAll, logits.subspan(begin * vocab, block.size() * vocab));
    } else if (last) {
      session->forward(block, LogitsFor::kLast, logits);
    } else {
      session->forward(block, LogitsFor::kNone, {});
    }
  }
  return result;
}

Floats state(SessionHandle& handle, size_t index) {
  InUse session(handle);
  const std::vector<StateInfo>& states = session->model().info().states;
  if (index >= states.size()) {
    throw Error(ErrorCode::kInvalidArgument, "There is no state " + std::to_string(index) +
                                                 "; the model has " + std::to_string(states.size()) + ".");
  }
  Floats copy(states[index].shape);
  std::ranges::copy(session->state(index), copy.mutable_data());
  return copy;
}

std::shared_ptr<SessionHandle> create(std::shared_ptr<Model> model, int threads) {
  const py::gil_scoped_release release;
  return std::make_shared<SessionHandle>(
      std::make_unique<Session>(std::move(model), SessionOptions{threads}));
}

std::shared_ptr<SessionHandle> clone(SessionHandle& handle) {
  InUse session(handle);
  const py::gil_scoped_release release;
  return std::make_shared<SessionHandle>(session->clone());
}

}  // namespace

void bind_session(py::module_& m) {
  py::class_<SessionHandle, std::shared_ptr<SessionHandle>>(m, "Session")
      .def(py::init(&create), py::arg("model"), py::arg("threads") = 0)
      .def("forward", &forward, py::arg("ids"), py::arg("last_only") = false)
      .def("reset",
           [](SessionHandle& handle) {
             InUse session(handle);
             const py::gil_scoped_release release;
             session->reset();
           })
      .def(
          "freeze", [](SessionHandle& handle, bool frozen) { InUse(handle)->freeze(frozen); },
          py::arg("frozen") = true)
      .def("clone", &clone)
      .def(
          "snapshot",
          [](SessionHandle& handle, const std::string& note) {
            InUse session(handle);
            const std::vector<std::byte> bytes = save_snapshot(*session, note);
            return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
          },
          py::arg("note"))
      .def(
          "restore",
          [](SessionHandle& handle, const py::bytes& snapshot) {
            InUse session(handle);
            const std::string_view bytes(snapshot);
            return py::bytes(load_snapshot(*session, std::as_bytes(std::span(bytes))).note);
          },
          py::arg("snapshot"))
      .def(
          "save",
          [](SessionHandle& handle, const std::string& path, const std::string& note) {
            InUse session(handle);
            const py::gil_scoped_release release;
            save_snapshot_file(*session, note, path);
          },
          py::arg("path"), py::arg("note"))
      .def(
          "load",
          [](SessionHandle& handle, const std::string& path) {
            InUse session(handle);
            return py::bytes(load_snapshot_file(*session, path).note);
          },
          py::arg("path"))
      .def("state", &state, py::arg("index"))
      .def(
          "place",
          [](SessionHandle& handle, uint64_t position) {
            InUse session(handle);
            session->restore(session->state_memory(), position);
          },
          py::arg("position"))
      .def("cancel", [](SessionHandle& handle) { handle.cancelled = true; })
      .def_property_readonly("position", [](const SessionHandle& h) { return h.session->position(); })
      .def_property_readonly("frozen", [](const SessionHandle& h) { return h.session->frozen(); })
      .def_property_readonly("state_bytes", [](const SessionHandle& h) { return h.session->state_bytes(); })
      .def_property_readonly("total_bytes", [](const SessionHandle& h) { return h.session->total_bytes(); })
      .def_property_readonly("threads", [](const SessionHandle& h) { return h.session->threads(); });
}

}  // namespace allmem::python
