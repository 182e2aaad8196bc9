// _core.Session: reading tokens, sampling by hand, looking at the state, saving and going back.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "runtime/generate.h"
#include "runtime/layer_memory.h"
#include "runtime/snapshot.h"

namespace py = pybind11;

namespace allmem::python {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

Floats forward(SessionHandle& handle, const py::object& tokens, bool last_only) {
  ClaimedWriter writer(handle);
  writer->forget_cancel();
  const auto vocab = static_cast<size_t>(handle.session().model().info().vocab_size);
  const std::vector<int32_t> ids = narrow_ids(tokens);
  const size_t rows = last_only ? 1 : ids.size();
  if (rows > std::numeric_limits<size_t>::max() / sizeof(float) / vocab) throw std::bad_alloc();
  Floats result({rows, vocab});
  check_signals();
  const WithoutGil without;
  const size_t read =
      writer->read(ids, last_only ? LogitsFor::kLast : LogitsFor::kAll, {result.mutable_data(), rows * vocab},
                   [](size_t) { return go_on_unless_interrupted(); });
  if (read < ids.size()) throw Error(ErrorCode::kCancelled, kReadingCancelled);
  return result;
}

Floats state(SessionHandle& handle, size_t index) {
  ClaimedWriter writer(handle);
  const std::vector<StateInfo>& states = handle.session().model().info().states;
  if (index >= states.size()) {
    throw Error(ErrorCode::kInvalidArgument, "There is no state " + std::to_string(index) +
                                                 "; the model has " + std::to_string(states.size()) + ".");
  }
  Floats copy(states[index].shape);
  std::ranges::copy(handle.session().state(index), copy.mutable_data());
  return copy;
}

std::shared_ptr<SessionHandle> create(std::shared_ptr<Model> model, int threads) {
  const WithoutGil without;
  return std::make_shared<SessionHandle>(
      std::make_unique<Writer>(std::make_unique<Session>(std::move(model), SessionOptions{threads})));
}

std::shared_ptr<SessionHandle> clone(SessionHandle& handle) {
  ClaimedWriter writer(handle);
  const WithoutGil without;
  return std::make_shared<SessionHandle>(writer->clone());
}

py::bytes snapshot(SessionHandle& handle, const std::string& note) {
  ClaimedWriter writer(handle);
  const size_t size = snapshot_size(*writer, note);
  PyObject* const made = PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(size));
  if (made == nullptr) throw py::error_already_set();
  auto bytes = py::reinterpret_steal<py::bytes>(made);
  const WithoutGil without;
  save_snapshot(*writer, note, {reinterpret_cast<std::byte*>(PyBytes_AS_STRING(made)), size});
  return bytes;
}

std::span<const std::byte> bytes_of(const py::bytes& snapshot) {
  const std::string_view bytes(snapshot);
  return std::as_bytes(std::span(bytes));
}

// Memory that Python may look at, or fill, during a call. Its view is released afterwards, so that nobody who
// keeps it can touch what is gone.
template <class Byte>
class View {
 public:
  explicit View(std::span<Byte> bytes)
      : view_(py::memoryview::from_memory(const_cast<std::byte*>(bytes.data()),
                                          static_cast<py::ssize_t>(bytes.size()),
                                          /*readonly=*/std::is_const_v<Byte>)) {}
  ~View() {
    py::error_scope pending;  // of the call that was given it
    try {
      view_.attr("release")();
    } catch (py::error_already_set& error) {  // somebody has made a view of the view
      error.discard_as_unraisable("a view of a memory");
    }
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  const py::memoryview& get() const { return view_; }

 private:
  py::memoryview view_;
};

Accept accept_of(const std::optional<py::function>& function) {
  if (!function) return {};
  return [&function](const SnapshotInfo& info) {
    const WithGil with;
    (*function)(py::bytes(info.note));
  };
}

}  // namespace

void bind_session(py::module_& m) {
  py::class_<LayerMemory>(m, "LayerMemory")
      .def_readonly("layer", &LayerMemory::layer)
      .def_readonly("drift", &LayerMemory::drift)
      .def_readonly("weight", &LayerMemory::weight)
      .def_readonly("momentum", &LayerMemory::momentum)
      .def_readonly("gradient", &LayerMemory::gradient);

  py::class_<SnapshotInfo>(m, "SnapshotInfo")
      .def_readonly("format", &SnapshotInfo::format)
      .def_readonly("position", &SnapshotInfo::position)
      .def_readonly("frozen", &SnapshotInfo::frozen)
      .def_readonly("exact", &SnapshotInfo::exact)
      .def_readonly("unfinished", &SnapshotInfo::unfinished)
      .def_readonly("fingerprint", &SnapshotInfo::fingerprint)
      .def_readonly("state_bytes", &SnapshotInfo::state_bytes)
      .def_readonly("states", &SnapshotInfo::states)
      .def_readonly("chosen", &SnapshotInfo::chosen)
      .def_property_readonly("note", [](const SnapshotInfo& info) { return py::bytes(info.note); });
  m.def(
      "inspect_snapshot", [](const py::bytes& snapshot) { return inspect_snapshot(bytes_of(snapshot)); },
      py::arg("snapshot"));
  m.def("delete_snapshot_file", &delete_snapshot_file, py::arg("path"), py::call_guard<WithoutGil>());
  m.def("inspect_snapshot_file", &inspect_snapshot_file, py::arg("path"), py::call_guard<WithoutGil>());

  py::class_<SessionHandle, std::shared_ptr<SessionHandle>>(m, "Session")
      .def(py::init(&create), py::arg("model"), py::arg("threads") = 0)
      .def("forward", &forward, py::arg("ids"), py::arg("last_only") = false)
      .def(
          "set_sampling",
          [](SessionHandle& handle, const py::dict& sampling) {
            const GenerateOptions options = generate_options(sampling);
            ClaimedWriter(handle)->set_sampling(options.sampling);
          },
          py::arg("sampling"))
      .def(
          "sample",
          [](SessionHandle& handle, const std::shared_ptr<Tokenizer>& tokenizer) {
            return ClaimedWriter(handle)->sample(tokenizer.get());
          },
          py::arg("tokenizer"))
      .def("reset",
           [](SessionHandle& handle) {
             ClaimedWriter writer(handle);
             const WithoutGil without;
             writer->reset();
           })
      .def("wipe",
           [](SessionHandle& handle) {
             ClaimedWriter writer(handle);
             const WithoutGil without;
             writer->wipe();
           })
      .def(
          "freeze",
          [](SessionHandle& handle, bool frozen) { ClaimedWriter(handle)->session().freeze(frozen); },
          py::arg("frozen") = true)
      .def("clone", &clone)
      .def(
          "mark",
          [](SessionHandle& handle, size_t max_bytes) {
            ClaimedWriter writer(handle);
            const WithoutGil without;
            writer->mark(max_bytes);
          },
          py::arg("max_bytes"))
      .def("undo",
           [](SessionHandle& handle) {
             ClaimedWriter writer(handle);
             const WithoutGil without;
             return writer->undo();
           })
      .def("snapshot", &snapshot, py::arg("note"))
      .def(
          "restore",
          [](SessionHandle& handle, const py::bytes& snapshot, const std::shared_ptr<Tokenizer>& tokenizer) {
            ClaimedWriter writer(handle);
            return py::bytes(load_snapshot(*writer, tokenizer, bytes_of(snapshot)).note);
          },
          py::arg("snapshot"), py::arg("tokenizer") = py::none())
      .def(
          "save",
          [](SessionHandle& handle, const std::string& path, const std::string& note) {
            ClaimedWriter writer(handle);
            const WithoutGil without;
            save_snapshot_file(*writer, note, path);
          },
          py::arg("path"), py::arg("note"))
      .def(
          "load",
          [](SessionHandle& handle, const std::string& path, const std::shared_ptr<Tokenizer>& tokenizer,
             const std::optional<py::function>& accept) {
            ClaimedWriter writer(handle);
            const WithoutGil without;
            std::string note = load_snapshot_file(*writer, tokenizer, path, accept_of(accept)).note;
            const WithGil with;
            return py::bytes(note);
          },
          py::arg("path"), py::arg("tokenizer") = py::none(), py::arg("accept") = py::none())
      .def(
          "save_to",
          [](SessionHandle& handle, const py::function& write, const std::string& note) {
            ClaimedWriter writer(handle);
            save_snapshot_to(*writer, note, [&](std::span<const std::byte> piece) {
              check_signals();
              write(View(piece).get());
            });
          },
          py::arg("write"), py::arg("note"))
      .def(
          "load_from",
          [](SessionHandle& handle, uint64_t size, const py::function& read,
             const std::shared_ptr<Tokenizer>& tokenizer, const std::optional<py::function>& accept) {
            ClaimedWriter writer(handle);
            const SnapshotSource source{size, [&](uint64_t offset, std::span<std::byte> into) {
                                          if (!into.empty()) read(offset, View(into).get());
                                        }};
            return py::bytes(load_snapshot(*writer, tokenizer, source, accept_of(accept)).note);
          },
          py::arg("size"), py::arg("read"), py::arg("tokenizer") = py::none(), py::arg("accept") = py::none())
      .def("state", &state, py::arg("index"))
      .def(
          "place",
          [](SessionHandle& handle, uint64_t position) {
            ClaimedWriter writer(handle);
            writer->session().restore(writer->session().state_memory(), position);
          },
          py::arg("position"))
      .def("layer_memories",
           [](SessionHandle& handle) {
             ClaimedWriter writer(handle);
             const WithoutGil without;
             return layer_memories(writer->session());
           })
      .def("cancel", [](SessionHandle& handle) { handle.writer->cancel(); })
      .def_property_readonly("unfinished", [](const SessionHandle& h) { return h.unfinished.load(); })
      .def_property_readonly("marks", [](const SessionHandle& h) { return h.marks.load(); })
      .def_property_readonly("mark_bytes", [](const SessionHandle& h) { return h.mark_bytes.load(); })
      .def_property_readonly("position", [](const SessionHandle& h) { return h.session().position(); })
      .def_property_readonly("frozen", [](const SessionHandle& h) { return h.session().frozen(); })
      .def_property_readonly("state_bytes", [](const SessionHandle& h) { return h.session().state_bytes(); })
      .def_property_readonly("total_bytes", [](const SessionHandle& h) { return h.session().total_bytes(); })
      .def_property_readonly("threads", [](const SessionHandle& h) { return h.session().threads(); });
}

}  // namespace allmem::python
