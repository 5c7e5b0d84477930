// A GPU for a torch without CUDA: what of one has to be said to torch in C++. The rest is Python: memory.py says where
// an allocation lies, streams.py which stream is current, operators.py computes. The device is torch's real "cuda", so
// that tensors, dispatch and the code under test take the ways that they take on a real one.

#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/extension.h>
#include <torch/library.h>
#include <unistd.h>

#include <map>
#include <mutex>

namespace {

constexpr int DEVICES = 2;
constexpr size_t ARENA_BYTES = size_t(1) << 40;  // of addresses; pages come as they are written to

thread_local int current_device = 0;
pybind11::object allocate_on, free_on, current_stream_on;  // of memory.py and streams.py

// ---- Memory: device addresses that the host may not touch, and the same bytes where the streams' threads may.

struct Arena {
  char* device = nullptr;
  char* host = nullptr;

  Arena() {
    int file = memfd_create("simulated_gpu", 0);
    TORCH_CHECK(file >= 0 && ftruncate(file, ARENA_BYTES) == 0, "no memory for the simulated GPU");
    host = map(PROT_READ | PROT_WRITE, MAP_SHARED, file);
    // A host that reads through a device pointer ends as it would on a real GPU: with a segmentation fault.
    device = map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    close(file);
  }

  static char* map(int access, int kind, int file) {
    void* found = mmap(nullptr, ARENA_BYTES, access, kind | MAP_NORESERVE, file, 0);
    TORCH_CHECK(found != MAP_FAILED, "no addresses for the simulated GPU");
    return static_cast<char*>(found);
  }
};

Arena& arena(int device) {
  static Arena arenas[DEVICES];
  return arenas[device];
}

void free_device_memory(void* address) {
  if (!Py_IsInitialized()) return;
  pybind11::gil_scoped_acquire python;
  pybind11::error_scope in_flight;  // a tensor may be dropped while an exception passes
  free_on(reinterpret_cast<uintptr_t>(address));
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    void* address = nullptr;
    if (nbytes) {
      pybind11::gil_scoped_acquire python;
      address = reinterpret_cast<void*>(allocate_on(current_device, nbytes).cast<uintptr_t>());
      TORCH_CHECK_WITH(OutOfMemoryError, address, "CUDA out of memory. Tried to allocate ", nbytes, " bytes (simulated)");
    }
    return {address, address, &free_device_memory, c10::Device(c10::kCUDA, current_device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_device_memory; }
  void copy_data(void*, const void*, size_t) const override { TORCH_CHECK(false, "the host copies no device memory"); }
} device_allocator;

std::mutex pinned_lock;
std::map<char*, size_t> pinned;

void free_pinned_memory(void* address) {
  std::lock_guard<std::mutex> locked(pinned_lock);
  pinned.erase(static_cast<char*>(address));
  free(address);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    std::lock_guard<std::mutex> locked(pinned_lock);
    char* address = static_cast<char*>(aligned_alloc(4096, (nbytes + 4095) / 4096 * 4096));
    pinned[address] = nbytes;
    return {address, address, &free_pinned_memory, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned_memory; }
  void copy_data(void* to, const void* from, size_t nbytes) const override { memcpy(to, from, nbytes); }
} pinned_allocator;

bool is_pinned(const void* address) {
  std::lock_guard<std::mutex> locked(pinned_lock);
  auto next = pinned.upper_bound(static_cast<char*>(const_cast<void*>(address)));
  return next != pinned.begin() && address < (--next)->first + next->second;
}

void pin(uintptr_t address, size_t nbytes) {
  std::lock_guard<std::mutex> locked(pinned_lock);
  pinned[reinterpret_cast<char*>(address)] = nbytes;
}

bool unpin(uintptr_t address) {
  std::lock_guard<std::mutex> locked(pinned_lock);
  return pinned.erase(reinterpret_cast<char*>(address)) > 0;
}

// ---- What torch asks a backend: which device and stream is current, how many there are, what is pinned.

int checked(int device) {
  TORCH_CHECK(device >= 0 && device < DEVICES, "CUDA error: invalid device ordinal (simulated)");
  return device;
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device getDevice() const override { return {c10::kCUDA, static_cast<c10::DeviceIndex>(current_device)}; }
  void setDevice(c10::Device device) const override { current_device = checked(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current_device = device.index(); }
  c10::Device exchangeDevice(c10::Device device) const override {
    c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Stream getStream(c10::Device device) const override {
    pybind11::gil_scoped_acquire python;
    c10::Device there(c10::kCUDA, device.has_index() ? device.index() : getDevice().index());
    return c10::Stream(c10::Stream::UNSAFE, there, current_stream_on(int(there.index())).cast<c10::StreamId>());
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return DEVICES; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct CUDAHooks final : at::CUDAHooksInterface {  // torch looks for this name
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  at::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  bool isPinnedPtr(const void* address) const override { return is_pinned(address); }
};
using at::CUDAHooksRegistry, at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)

// ---- Operators that make tensors or views and compute nothing; every other one is operators.py's.

constexpr c10::DispatchKeySet CUDA_KEYS(c10::DispatchKey::CUDA);

c10::Device full(std::optional<c10::Device> asked) {
  return {c10::kCUDA, static_cast<c10::DeviceIndex>(asked && asked->has_index() ? checked(asked->index()) : current_device)};
}

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard there(full(device));
  return at::detail::empty_generic(size, &device_allocator, CUDA_KEYS, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  c10::DeviceGuard there(full(device));
  return at::detail::empty_strided_generic(size, stride, &device_allocator, CUDA_KEYS, c10::dtype_or_default(dtype));
}

const at::Tensor& resize_(const at::Tensor& self, c10::IntArrayRef size, std::optional<at::MemoryFormat>) {
  size_t nbytes = c10::multiply_integers(size) * self.itemsize();
  if (nbytes > self.storage().nbytes()) {
    TORCH_CHECK(!self.storage().nbytes(), "the simulated GPU gives memory only to what has none");
    c10::DeviceGuard there(self.device());
    self.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(device_allocator.allocate(nbytes));
    self.storage().unsafeGetStorageImpl()->set_nbytes(nbytes);
  }
  self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return self;
}

TORCH_LIBRARY_IMPL(aten, CUDA, operators) {
  operators.impl("empty.memory_format", empty);
  operators.impl("empty_strided", empty_strided);
  operators.impl("resize_", resize_);
  operators.impl("as_strided", at::native::as_strided_tensorimpl);
  operators.impl("_reshape_alias", at::native::_reshape_alias);
  operators.impl("view", static_cast<at::Tensor (*)(const at::Tensor&, c10::IntArrayRef)>(at::native::view));
}

// The same elements for a stream's thread. It owns nothing: who queues work keeps what the work needs.
at::Tensor for_streams(const at::Tensor& tensor) {
  static char nothing[64];
  char* address = static_cast<char*>(tensor.data_ptr());
  if (!address) {
    address = nothing;
  } else if (tensor.is_cuda()) {
    const Arena& own = arena(tensor.get_device());
    TORCH_CHECK(address >= own.device && address < own.device + ARENA_BYTES, "memory of another device");
    address = own.host + (address - own.device);
  }
  return at::from_blob(address, tensor.sizes(), tensor.strides(), at::TensorOptions().dtype(tensor.dtype()));
}

// Device memory that torch has not allocated.
at::Tensor device_bytes(uintptr_t address, int64_t nbytes, int device) {
  c10::Device there(c10::kCUDA, static_cast<c10::DeviceIndex>(checked(device)));
  auto options = at::TensorOptions().dtype(at::kByte).device(there);
  return at::for_blob(reinterpret_cast<void*>(address), {nbytes}).options(options).target_device(there).make_tensor();
}

}  // namespace

PYBIND11_MODULE(simulated_gpu_backend, module) {
  c10::SetAllocator(c10::kCUDA, &device_allocator);
  module.attr("DEVICES") = DEVICES;
  module.attr("ARENA_BYTES") = ARENA_BYTES;
  module.def("connect", [](pybind11::object allocate, pybind11::object free, pybind11::object current_stream) {
    // Never let go of: tensors are freed until the process is gone.
    allocate_on = allocate.release().cast<pybind11::object>();
    free_on = free.release().cast<pybind11::object>();
    current_stream_on = current_stream.release().cast<pybind11::object>();
  });
  module.def("initialise", [] { at::globalContext().lazyInitDevice(c10::kCUDA); });
  module.def("device_base", [](int device) { return reinterpret_cast<uintptr_t>(arena(device).device); });
  module.def("host_base", [](int device) { return reinterpret_cast<uintptr_t>(arena(device).host); });
  module.def("current_device", [] { return current_device; });
  module.def("set_device", [](int device) { current_device = checked(device); });
  module.def("for_streams", &for_streams);
  module.def("device_bytes", &device_bytes);
  module.def("pin", &pin);
  module.def("unpin", &unpin);
}
