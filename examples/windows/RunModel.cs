// Open a model of lightning-trt-windows with ONNX Runtime, print its ranges, run a batch and time it.
//
//     dotnet run -- MODEL.onnx PROVIDER.dll [min|opt|max]
//
// PROVIDER.dll is onnxruntime_providers_nv_tensorrt_rtx.dll with its neighbours, or "cpu" for a model without engines.
// RunModel.csproj is beside this file; README.md says where the DLLs come from. With Windows ML: WindowsMl.cs.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using Microsoft.ML.OnnxRuntime;

static class RunModel
{
    const string Provider = "NvTensorRTRTXExecutionProvider";

    // Register the provider's library and choose the first GPU that it finds.
    static void UseGpu(SessionOptions options, string library)
    {
        OrtEnv env = OrtEnv.Instance();
        env.RegisterExecutionProviderLibrary(Provider, Path.GetFullPath(library));
        List<OrtEpDevice> devices = env.GetEpDevices().Where(device => device.EpName == Provider).Take(1).ToList();
        if (devices.Count == 0)
            throw new InvalidOperationException(Provider + " finds no GPU: it needs an NVIDIA RTX GPU and its driver");
        options.AppendExecutionProvider(env, devices, new Dictionary<string, string>());
    }

    // The shape of an input at its smallest, usual or largest size, which the model carries as text: "8,3,224,224".
    static long[] ShapeOf(InferenceSession session, string input, string size)
    {
        string text;
        if (!session.ModelMetadata.CustomMetadataMap.TryGetValue(input + "." + size, out text))
            throw new InvalidDataException($"no {input}.{size} in the model: no ranges are known");
        return text.Split(new[] { ',' }, StringSplitOptions.RemoveEmptyEntries).Select(long.Parse).ToArray();
    }

    static string Show(long[] shape) { return "[" + string.Join(", ", shape) + "]"; }

    static void Run(string model, string library, string size)
    {
        using (var options = new SessionOptions())
        using (var run = new RunOptions())
        {
            if (library != "cpu") UseGpu(options, library);
            using (var session = new InferenceSession(model, options))
            {
                var inputs = new Dictionary<string, OrtValue>();
                foreach (KeyValuePair<string, NodeMetadata> input in session.InputMetadata)
                {
                    foreach (string bound in new[] { "min", "opt", "max" })
                        Console.WriteLine($"{input.Key} {bound} {Show(ShapeOf(session, input.Key, bound))}");
                    OrtValue value = OrtValue.CreateAllocatedTensorValue(
                        OrtAllocator.DefaultInstance, input.Value.ElementDataType, ShapeOf(session, input.Key, size));
                    value.GetTensorMutableRawData().Clear(); // your data: GetTensorMutableDataAsSpan<float>()
                    inputs[input.Key] = value;
                }
                using (var results = session.Run(run, inputs, session.OutputNames)) // the first call compiles kernels
                    for (int i = 0; i < results.Count; ++i)
                        Console.WriteLine(
                            $"gives {session.OutputNames[i]} {Show(results[i].GetTensorTypeAndShape().Shape)}");
                var times = new List<double>();
                for (int i = 0; i < 110; ++i)
                {
                    Stopwatch watch = Stopwatch.StartNew();
                    session.Run(run, inputs, session.OutputNames).Dispose();
                    if (i >= 10) times.Add(watch.Elapsed.TotalMilliseconds);
                }
                times.Sort();
                Console.WriteLine($"at {size}: P50 {times[49]:F3} ms, P99 {times[98]:F3} ms");
                foreach (OrtValue value in inputs.Values) value.Dispose();
            }
        }
    }

    static int Main(string[] words)
    {
        string size = words.Length == 3 ? words[2] : "opt";
        if (words.Length < 2 || words.Length > 3 || !new[] { "min", "opt", "max" }.Contains(size))
        {
            Console.Error.WriteLine("RunModel MODEL.onnx PROVIDER.dll [min|opt|max]; PROVIDER.dll may be cpu");
            return 2;
        }
        try
        {
            Run(words[0], words[1], size);
            return 0;
        }
        catch (Exception error) // what to do about it is in the message of ONNX Runtime
        {
            Console.Error.WriteLine("error: " + error.Message);
            return 1;
        }
    }
}
