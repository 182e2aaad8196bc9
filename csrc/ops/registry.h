// The operators that the native runtime has, by domain and name.
#pragma once

#include <memory>
#include <string_view>

#include "graph/binder.h"

namespace allmem {

// The maker for an operator; null when there is none.
OpMaker find_op(std::string_view domain, std::string_view op_type);

// Makers. Each checks its node's types, shapes and attributes, and declares the outputs.
namespace ops {
using MadeOp = std::unique_ptr<const Op>;
MadeOp make_binary(Binder& node);                    // Add, Sub, Mul, Div, Pow
MadeOp make_cast(Binder& node);                      // Cast
MadeOp make_concat(Binder& node);                    // Concat
MadeOp make_constant(Binder& node);                  // Constant
MadeOp make_dequantize_linear(Binder& node);         // DequantizeLinear
MadeOp make_einsum(Binder& node);                    // Einsum
MadeOp make_gather(Binder& node);                    // Gather
MadeOp make_gather_nbits(Binder& node);              // com.microsoft::GatherBlockQuantized
MadeOp make_gemm(Binder& node);                      // Gemm
MadeOp make_identity(Binder& node);                  // Identity
MadeOp make_linear_memory(Binder& node);             // allmem::LinearMemory
MadeOp make_matmul(Binder& node);                    // MatMul
MadeOp make_matmul_nbits(Binder& node);              // com.microsoft::MatMulNBits
MadeOp make_reduce(Binder& node);                    // ReduceSum, ReduceMean
MadeOp make_reshape(Binder& node);                   // Reshape
MadeOp make_rms_norm(Binder& node);                  // RMSNormalization
MadeOp make_slice(Binder& node);                     // Slice
MadeOp make_sliding_window_attention(Binder& node);  // allmem::SlidingWindowAttention
MadeOp make_softmax(Binder& node);                   // Softmax
MadeOp make_split(Binder& node);                     // Split
MadeOp make_squeeze(Binder& node);                   // Squeeze
MadeOp make_test_time_memory(Binder& node);          // allmem::TestTimeMemory
MadeOp make_transpose(Binder& node);                 // Transpose
MadeOp make_unary(Binder& node);      // Sigmoid, Swish, Softplus, Neg, Exp, Sqrt, Reciprocal, Tanh, Relu
MadeOp make_unsqueeze(Binder& node);  // Unsqueeze
}  // namespace ops

}  // namespace allmem
