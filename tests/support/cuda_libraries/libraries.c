/* The functions of cuDNN and cuBLAS of which an answer is read. All others are made by `build`, and answer 0. */
#include <stdlib.h>
#include <string.h>

void standin_log(const char *format, ...);

size_t cudnnGetVersion(void) { return 92000; }
const char *cudnnGetErrorString(int error) { return "stand-in error"; }
void cudnnGetLastErrorString(char *text, size_t size) { if (size) *text = 0; }
int cudnnBackendCreateDescriptor(int kind, void **descriptor) { *descriptor = calloc(1, 256); return 0; }
int cudnnBackendGetAttribute(void *descriptor, int name, int type, long wanted, long *count, void *value) {
    enum { INT64 = 3, INT32 = 23, KNOB_CHOICES = 302, NUMERICAL_NOTE = 1303, BEHAVIOR_NOTE = 1305 };
    if (count) *count = name != KNOB_CHOICES && name != NUMERICAL_NOTE && name != BEHAVIOR_NOTE;
    if (value && wanted == 1 && type == INT64) *(long *)value = 0;
    if (value && wanted == 1 && type == INT32) *(int *)value = 0;
    return 0;
}
int cublasGetMathMode(void *context, int *mode) { *mode = 0; return 0; }
const char *cublasGetStatusName(int status) { return "stand-in"; }
const char *cublasGetStatusString(int status) { return "stand-in"; }
int cublasLtMatmulAlgoGetHeuristic(void *context, void *a, void *b, void *c, void *d, void *e, void *f, int wanted,
                                   void *results, int *count) {
    *count = 1;
    return 0;
}
