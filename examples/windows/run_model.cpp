// Open a model of lightning-trt-windows with ONNX Runtime, print its ranges, run a batch and time it.
//
//     run_model.exe MODEL.onnx PROVIDER.dll [min|opt|max]
//
// PROVIDER.dll is onnxruntime_providers_nv_tensorrt_rtx.dll with its neighbours, or "cpu" for a model without engines.
// How to compile it, and where the headers and DLLs come from, stands in README.md beside this file.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

constexpr const char* kProvider = "NvTensorRTRTXExecutionProvider";

// Register the provider's library and choose the first GPU that it finds.
static void use_gpu(Ort::Env& env, Ort::SessionOptions& options, const std::filesystem::path& library) {
  env.RegisterExecutionProviderLibrary(kProvider, std::filesystem::absolute(library).native());
  for (const auto& device : env.GetEpDevices()) {
    if (std::strcmp(device.EpName(), kProvider) == 0)
      return (void)options.AppendExecutionProvider_V2(env, {device}, std::unordered_map<std::string, std::string>{});
  }
  throw std::runtime_error(std::string(kProvider) + " finds no GPU: it needs an NVIDIA RTX GPU and its driver");
}

// The shape of an input at its smallest, usual or largest size, which the model carries as text: "8,3,224,224".
static std::vector<int64_t> shape_of(Ort::Session& session, const std::string& input, const std::string& size) {
  Ort::AllocatorWithDefaultOptions allocator;
  auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated((input + "." + size).c_str(), allocator);
  if (!text) throw std::runtime_error("no " + input + "." + size + " in the model: no ranges are known");
  std::vector<int64_t> shape;
  std::istringstream sizes(text.get());
  for (std::string one; std::getline(sizes, one, ',');) shape.push_back(std::stoll(one));
  return shape;
}

static void print(const std::string& what, const std::vector<int64_t>& shape) {
  std::printf("%s [", what.c_str());
  for (size_t axis = 0; axis < shape.size(); ++axis) std::printf(axis ? ", %lld" : "%lld", (long long)shape[axis]);
  std::puts("]");
}

static void run(const std::filesystem::path& model, const std::filesystem::path& library, const std::string& size) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "run_model");
  Ort::SessionOptions options;
  if (library != "cpu") use_gpu(env, options, library);
  Ort::Session session(env, model.c_str(), options);
  Ort::AllocatorWithDefaultOptions allocator;
  const std::vector<std::string> inputs = session.GetInputNames(), outputs = session.GetOutputNames();
  std::vector<Ort::Value> values;
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (const char* bound : {"min", "opt", "max"}) print(inputs[i] + " " + bound, shape_of(session, inputs[i], bound));
    const auto shape = shape_of(session, inputs[i], size);
    const auto type = session.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetElementType();
    values.push_back(Ort::Value::CreateTensor(allocator, shape.data(), shape.size(), type));
    std::memset(values[i].GetTensorMutableRawData(), 0, values[i].GetTensorSizeInBytes());  // your data goes here
    const size_t count = values[i].GetTensorTypeAndShapeInfo().GetElementCount();
    if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) std::fill_n(values[i].GetTensorMutableData<float>(), count, 1.0f);
  }
  std::vector<const char*> in, out;
  for (const auto& name : inputs) in.push_back(name.c_str());
  for (const auto& name : outputs) out.push_back(name.c_str());
  const auto call = [&] { return session.Run({}, in.data(), values.data(), in.size(), out.data(), out.size()); };
  std::vector<Ort::Value> results = call();  // the first call compiles kernels
  for (size_t i = 0; i < results.size(); ++i) {
    const auto info = results[i].GetTensorTypeAndShapeInfo();
    print("gives " + outputs[i], info.GetShape());
    if (info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT && info.GetElementCount())
      std::printf("  begins with %g\n", *results[i].GetTensorData<float>());
  }
  std::vector<double> times;
  for (int i = 0; i < 110; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
    if (i >= 10) times.push_back(spent.count());
  }
  std::sort(times.begin(), times.end());
  std::printf("at %s: P50 %.3f ms, P99 %.3f ms\n", size.c_str(), times[49], times[98]);
}

int wmain(int count, wchar_t** words) {
  const std::wstring size = count == 4 ? words[3] : L"opt";
  if (count < 3 || count > 4 || (size != L"min" && size != L"opt" && size != L"max")) {
    return std::fputs("run_model.exe MODEL.onnx PROVIDER.dll [min|opt|max]; PROVIDER.dll may be cpu\n", stderr), 2;
  }
  try {
    run(words[1], words[2], std::string(size.begin(), size.end()));
  } catch (const std::exception& error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
  }
  return 0;
}
