/* Stands where libnvinfer and its companions belong: NVIDIA's Python bindings and Torch-TensorRT import with it, so that
   their classes, enumerations and signatures can be looked at where TensorRT itself cannot be installed. It builds
   nothing and runs nothing. The registry of plugins is an object all of whose methods do nothing. */

static long nothing(void) { return 0; }

#define FOUR nothing, nothing, nothing, nothing
#define SIXTEEN FOUR, FOUR, FOUR, FOUR
static long (*methods[])(void) = {SIXTEEN, SIXTEEN, SIXTEEN, SIXTEEN};
static struct { long (**methods)(void); void *implementation; } registry = {methods, 0};

#define NOTHING(name) void *name(void) { return 0; }
NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(initLibNvInferPlugins)

void *getPluginRegistry(void) { return &registry; }
void *getBuilderPluginRegistry(void) { return &registry; }
int getNvOnnxParserVersion(void) { return 0; }
int getInferLibVersion(void) { return 0; }
