/* The header is C11, too, and its _init functions can be called from C. */
#include "allmem/allmem.h"

int header_compiles_as_c11(void);
int header_compiles_as_c11(void) {
  allmem_model_options model;
  allmem_session_options session;
  allmem_sampling sampling;
  allmem_model_options_init(&model);
  allmem_session_options_init(&session);
  allmem_sampling_init(&sampling);
  return model.struct_size == sizeof model && session.struct_size == sizeof session &&
         sampling.struct_size == sizeof sampling;
}
