// The operators that the native runtime has, by domain and name.
#include "ops/registry.h"

namespace allmem {

OpMaker find_op(std::string_view domain, std::string_view op_type) {
  struct Entry {
    std::string_view domain, op_type;
    OpMaker make;
  };
  static constexpr Entry kOps[] = {
      {"", "Add", ops::make_binary},
      {"", "Cast", ops::make_cast},
      {"", "Concat", ops::make_concat},
      {"", "Constant", ops::make_constant},
      {"", "DequantizeLinear", ops::make_dequantize_linear},
      {"", "Div", ops::make_binary},
      {"", "Einsum", ops::make_einsum},
      {"", "Exp", ops::make_unary},
      {"", "Gather", ops::make_gather},
      {"", "Gemm", ops::make_gemm},
      {"", "Identity", ops::make_identity},
      {"", "MatMul", ops::make_matmul},
      {"", "Mul", ops::make_binary},
      {"", "Neg", ops::make_unary},
      {"", "Pow", ops::make_binary},
      {"", "RMSNormalization", ops::make_rms_norm},
      {"", "Reciprocal", ops::make_unary},
      {"", "ReduceMean", ops::make_reduce},
      {"", "ReduceSum", ops::make_reduce},
      {"", "Relu", ops::make_unary},
      {"", "Reshape", ops::make_reshape},
      {"", "Sigmoid", ops::make_unary},
      {"", "Slice", ops::make_slice},
      {"", "Softmax", ops::make_softmax},
      {"", "Softplus", ops::make_unary},
      {"", "Split", ops::make_split},
      {"", "Sqrt", ops::make_unary},
      {"", "Squeeze", ops::make_squeeze},
      {"", "Sub", ops::make_binary},
      {"", "Swish", ops::make_unary},
      {"", "Tanh", ops::make_unary},
      {"", "Transpose", ops::make_transpose},
      {"", "Unsqueeze", ops::make_unsqueeze},
      {"allmem", "LinearMemory", ops::make_linear_memory},
      {"allmem", "SlidingWindowAttention", ops::make_sliding_window_attention},
      {"allmem", "TestTimeMemory", ops::make_test_time_memory},
      {"com.microsoft", "GatherBlockQuantized", ops::make_gather_nbits},
      {"com.microsoft", "MatMulNBits", ops::make_matmul_nbits},
  };
  for (const Entry& entry : kOps) {
    if (entry.domain == domain && entry.op_type == op_type) return entry.make;
  }
  return nullptr;
}

}  // namespace allmem
