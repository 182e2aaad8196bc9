// What Swift does with the example's module map, in Objective-C: the header is a module that compiles by itself.
@import CAllMem;

_Static_assert(ALLMEM_ABI_VERSION == 1, "a macro comes along");
int32_t (*load)(const char *, const allmem_model_options *, allmem_model **) = allmem_model_load;
