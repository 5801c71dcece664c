// The same with Windows ML, which downloads the execution provider for the GPU and keeps it up to date.
//
//     dotnet run --project WindowsMl.csproj -- MODEL.onnx [min|opt|max]
//
// Windows 11 24H2 or newer. An engine loads in the TensorRT-RTX that built it: the provider that Windows brings must
// have the version that stands in the model as "tensorrt_rtx", or creating the session fails. See README.md.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Threading.Tasks;
using Microsoft.ML.OnnxRuntime;
using Microsoft.Windows.AI.MachineLearning;

static class WindowsMl
{
    const string Provider = "NvTensorRTRTXExecutionProvider";

    // Let Windows fetch the provider, which may take minutes the first time, and choose the first GPU that it finds.
    static async Task UseGpu(SessionOptions options)
    {
        ExecutionProvider found = ExecutionProviderCatalog.GetDefault().FindAllProviders()
            .FirstOrDefault(provider => provider.Name == Provider);
        if (found == null) throw new InvalidOperationException("Windows has no " + Provider + " for this PC");
        ExecutionProviderReadyResult ready = await found.EnsureReadyAsync();
        if (ready.Status != ExecutionProviderReadyResultState.Success)
            throw new InvalidOperationException("Windows could not fetch " + Provider + ": " + ready.DiagnosticText);
        if (!found.TryRegister()) throw new InvalidOperationException(Provider + " does not register");
        List<OrtEpDevice> devices =
            OrtEnv.Instance().GetEpDevices().Where(device => device.EpName == Provider).Take(1).ToList();
        if (devices.Count == 0) throw new InvalidOperationException(Provider + " finds no GPU");
        options.AppendExecutionProvider(OrtEnv.Instance(), devices, new Dictionary<string, string>());
    }

    // The shape of an input at its smallest, usual or largest size, which the model carries as text: "8,3,224,224".
    static long[] ShapeOf(InferenceSession session, string input, string size)
    {
        return session.ModelMetadata.CustomMetadataMap[input + "." + size]
            .Split(new[] { ',' }, StringSplitOptions.RemoveEmptyEntries).Select(long.Parse).ToArray();
    }

    static async Task Run(string model, string size)
    {
        OrtEnv.Instance(); // before providers register
        using (var options = new SessionOptions())
        using (var run = new RunOptions())
        {
            await UseGpu(options);
            using (var session = new InferenceSession(model, options))
            {
                Console.WriteLine("made by TensorRT-RTX " + session.ModelMetadata.CustomMetadataMap["tensorrt_rtx"]);
                var inputs = new Dictionary<string, OrtValue>();
                foreach (KeyValuePair<string, NodeMetadata> input in session.InputMetadata)
                {
                    long[] shape = ShapeOf(session, input.Key, size);
                    Console.WriteLine($"{input.Key} {size} [{string.Join(", ", shape)}]");
                    OrtValue value = OrtValue.CreateAllocatedTensorValue(
                        OrtAllocator.DefaultInstance, input.Value.ElementDataType, shape);
                    value.GetTensorMutableRawData().Clear(); // your data: GetTensorMutableDataAsSpan<float>()
                    inputs[input.Key] = value;
                }
                var times = new List<double>();
                for (int i = 0; i < 110; ++i)
                {
                    Stopwatch watch = Stopwatch.StartNew();
                    session.Run(run, inputs, session.OutputNames).Dispose();
                    if (i >= 10) times.Add(watch.Elapsed.TotalMilliseconds); // the first calls compile kernels
                }
                times.Sort();
                Console.WriteLine($"at {size}: P50 {times[49]:F3} ms, P99 {times[98]:F3} ms");
                foreach (OrtValue value in inputs.Values) value.Dispose();
            }
        }
    }

    static int Main(string[] words)
    {
        string size = words.Length == 2 ? words[1] : "opt";
        if (words.Length < 1 || words.Length > 2 || !new[] { "min", "opt", "max" }.Contains(size))
        {
            Console.Error.WriteLine("WindowsMl MODEL.onnx [min|opt|max]");
            return 2;
        }
        try
        {
            Run(words[0], size).GetAwaiter().GetResult();
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine("error: " + error.Message);
            return 1;
        }
    }
}
