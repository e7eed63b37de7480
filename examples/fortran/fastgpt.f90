! fastgpt.f90 - the functions of fastgpt.h that a Fortran program needs to run a model, text to text.
! Handles are type(c_ptr).  Shapes, units and errors are told in fastgpt.h.
module fastgpt
   use, intrinsic :: iso_c_binding
   implicit none
   public

   integer(c_int), parameter :: FASTGPT_OK = 0
   integer(c_int32_t), parameter :: FASTGPT_ENCODE_SPECIAL = 0, FASTGPT_ENCODE_LITERAL = 1

   type, bind(c) :: fastgpt_error
      character(kind=c_char) :: text(512) = c_null_char
   end type

   type, bind(c) :: fastgpt_sampler_params
      integer(c_size_t) :: struct_size = 0  ! c_sizeof of this variable
      real(c_float) :: temperature = 0
      integer(c_int32_t) :: top_k = 0
      real(c_float) :: top_p = 0, min_p = 0, repetition_penalty = 0
      integer(c_int64_t) :: seed = 0
   end type

   abstract interface
      ! Receives whole characters as they come; returns 0 to go on.
      function fastgpt_piece_callback(user, token, text, n_bytes) bind(c) result(stop)
         import
         type(c_ptr), value :: user, text
         integer(c_int32_t), value :: token
         integer(c_size_t), value :: n_bytes
         integer(c_int32_t) :: stop
      end function
   end interface

   interface
      function fastgpt_status_text(status) bind(c) result(text)
         import
         integer(c_int), value :: status
         type(c_ptr) :: text
      end function

      function fastgpt_model_load(path, options, model, error) bind(c) result(status)
         import
         character(kind=c_char), intent(in) :: path(*)
         type(c_ptr), value :: options
         type(c_ptr), intent(out) :: model
         type(fastgpt_error), intent(out) :: error
         integer(c_int) :: status
      end function
      subroutine fastgpt_model_free(model) bind(c)
         import
         type(c_ptr), value :: model
      end subroutine
      pure function fastgpt_model_n_vocab(model) bind(c) result(n)
         import
         type(c_ptr), value :: model
         integer(c_int32_t) :: n
      end function
      function fastgpt_model_token_bytes(model, token, n_bytes) bind(c) result(bytes)
         import
         type(c_ptr), value :: model
         integer(c_int32_t), value :: token
         integer(c_size_t), intent(out) :: n_bytes
         type(c_ptr) :: bytes
      end function

      function fastgpt_pool_create(n_threads, pool) bind(c) result(status)
         import
         integer(c_int32_t), value :: n_threads
         type(c_ptr), intent(out) :: pool
         integer(c_int) :: status
      end function
      subroutine fastgpt_pool_free(pool) bind(c)
         import
         type(c_ptr), value :: pool
      end subroutine

      function fastgpt_kv_cache_create(model, n_ctx, kv) bind(c) result(status)
         import
         type(c_ptr), value :: model
         integer(c_int32_t), value :: n_ctx
         type(c_ptr), intent(out) :: kv
         integer(c_int) :: status
      end function
      subroutine fastgpt_kv_cache_free(kv) bind(c)
         import
         type(c_ptr), value :: kv
      end subroutine
      function fastgpt_kv_cache_truncate(kv, n_past) bind(c) result(status)
         import
         type(c_ptr), value :: kv
         integer(c_int32_t), value :: n_past
         integer(c_int) :: status
      end function

      function fastgpt_context_create(model, pool, n_batch, ctx) bind(c) result(status)
         import
         type(c_ptr), value :: model, pool
         integer(c_int32_t), value :: n_batch
         type(c_ptr), intent(out) :: ctx
         integer(c_int) :: status
      end function
      subroutine fastgpt_context_free(ctx) bind(c)
         import
         type(c_ptr), value :: ctx
      end subroutine
      function fastgpt_prefill(ctx, kv, tokens, n_tokens, logits) bind(c) result(status)
         import
         type(c_ptr), value :: ctx, kv
         integer(c_int32_t), intent(in) :: tokens(*)
         integer(c_int32_t), value :: n_tokens
         real(c_float), intent(out) :: logits(*)
         integer(c_int) :: status
      end function

      function fastgpt_sampler_create(n_vocab, params, sampler) bind(c) result(status)
         import
         integer(c_int32_t), value :: n_vocab
         type(fastgpt_sampler_params), intent(in) :: params
         type(c_ptr), intent(out) :: sampler
         integer(c_int) :: status
      end function
      subroutine fastgpt_sampler_free(sampler) bind(c)
         import
         type(c_ptr), value :: sampler
      end subroutine
      function fastgpt_sampler_probabilities(sampler, logits, probabilities) bind(c) result(status)
         import
         type(c_ptr), value :: sampler
         real(c_float), intent(in) :: logits(*)
         real(c_float), intent(out) :: probabilities(*)
         integer(c_int) :: status
      end function

      function fastgpt_tokenizer_create(model, tokenizer, error) bind(c) result(status)
         import
         type(c_ptr), value :: model
         type(c_ptr), intent(out) :: tokenizer
         type(fastgpt_error), intent(out) :: error
         integer(c_int) :: status
      end function
      subroutine fastgpt_tokenizer_free(tokenizer) bind(c)
         import
         type(c_ptr), value :: tokenizer
      end subroutine
      function fastgpt_encode(tokenizer, text, n_bytes, flags, tokens, capacity, n_tokens) bind(c) result(status)
         import
         type(c_ptr), value :: tokenizer
         character(kind=c_char), intent(in) :: text(*)
         integer(c_size_t), value :: n_bytes
         integer(c_int32_t), value :: flags, capacity
         integer(c_int32_t), intent(out) :: tokens(*), n_tokens
         integer(c_int) :: status
      end function

      function fastgpt_generate(ctx, kv, sampler, tokenizer, prompt, n_prompt, max_new_tokens, callback, user, &
                                n_generated) bind(c) result(status)
         import
         type(c_ptr), value :: ctx, kv, sampler, tokenizer, user
         integer(c_int32_t), intent(in) :: prompt(*)
         integer(c_int32_t), value :: n_prompt, max_new_tokens
         type(c_funptr), value :: callback  ! c_funloc of a fastgpt_piece_callback
         integer(c_int32_t), intent(out) :: n_generated
         integer(c_int) :: status
      end function
   end interface

contains

   ! A Fortran string of n bytes at a C address.
   function string_at(address, n) result(string)
      type(c_ptr), intent(in) :: address
      integer(c_size_t), intent(in) :: n
      character(len=n) :: string
      character(kind=c_char), pointer :: bytes(:)
      if (n == 0) return
      call c_f_pointer(address, bytes, [n])
      string = transfer(bytes, string)
   end function

   ! The text of an error that a function has filled in.
   function error_text(error) result(text)
      type(fastgpt_error), intent(in) :: error
      character(len=:), allocatable :: text
      integer :: n
      n = findloc(error%text, c_null_char, dim=1) - 1
      text = transfer(error%text(:n), repeat(' ', n))
   end function

   ! What a status means.
   function status_text(status) result(text)
      integer(c_int), intent(in) :: status
      character(len=:), allocatable :: text
      interface
         function strlen(string) bind(c) result(n)
            import
            type(c_ptr), value :: string
            integer(c_size_t) :: n
         end function
      end interface
      type(c_ptr) :: address
      address = fastgpt_status_text(status)
      text = string_at(address, strlen(address))
   end function
end module
