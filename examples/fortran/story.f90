! story.f90 - what may follow a prompt, and a story that goes on from there.  README.md has the build line.
module pieces
   use, intrinsic :: iso_fortran_env, only: output_unit
   use fastgpt
   implicit none
contains

   ! A fastgpt_piece_callback.
   function print_piece(user, token, text, n_bytes) bind(c) result(stop)
      type(c_ptr), value :: user, text
      integer(c_int32_t), value :: token
      integer(c_size_t), value :: n_bytes
      integer(c_int32_t) :: stop
      write (output_unit, '(a)', advance='no') string_at(text, n_bytes)
      flush (output_unit)
      stop = 0  ! go on
   end function
end module

program story
   use, intrinsic :: iso_fortran_env, only: output_unit
   use fastgpt
   use pieces
   implicit none
   type(c_ptr) :: model
   type(fastgpt_error) :: error

   if (command_argument_count() /= 2) error stop 'usage: story MODEL.gguf PROMPT'
   if (fastgpt_model_load('missing.gguf' // c_null_char, c_null_ptr, model, error) /= FASTGPT_OK) &
      print '(2a)', 'no story: ', error_text(error)
   if (fastgpt_model_load(argument(1) // c_null_char, c_null_ptr, model, error) /= FASTGPT_OK) &
      error stop error_text(error)
   call tell(model, argument(2))
   call fastgpt_model_free(model)

contains

   subroutine tell(model, prompt)
      type(c_ptr), intent(in) :: model
      character(len=*), intent(in) :: prompt
      type(c_ptr) :: tokenizer, pool, ctx, kv, as_is, greedy
      integer(c_int32_t) :: tokens(len(prompt)), n, n_new
      real(c_float) :: logits(fastgpt_model_n_vocab(model)), probabilities(size(logits))

      call must(fastgpt_tokenizer_create(model, tokenizer, error))
      call must(fastgpt_pool_create(0, pool))  ! one thread a core
      call must(fastgpt_context_create(model, pool, 0, ctx))
      call must(fastgpt_kv_cache_create(model, 0, kv))
      as_is = new_sampler(size(logits), 1.0)
      greedy = new_sampler(size(logits), 0.0)

      call must(fastgpt_encode(tokenizer, prompt, len(prompt, c_size_t), FASTGPT_ENCODE_LITERAL, tokens, &
                               size(tokens), n))
      call must(fastgpt_prefill(ctx, kv, tokens, n, logits))
      call must(fastgpt_sampler_probabilities(as_is, logits, probabilities))
      call print_likeliest(model, probabilities)

      call must(fastgpt_kv_cache_truncate(kv, 0))
      write (output_unit, '(a)', advance='no') prompt
      call must(fastgpt_generate(ctx, kv, greedy, tokenizer, tokens, n, 40, c_funloc(print_piece), c_null_ptr, n_new))
      write (output_unit, '()')

      call fastgpt_sampler_free(greedy)
      call fastgpt_sampler_free(as_is)
      call fastgpt_kv_cache_free(kv)
      call fastgpt_context_free(ctx)
      call fastgpt_pool_free(pool)
      call fastgpt_tokenizer_free(tokenizer)
   end subroutine

   ! Temperature 0 always takes the likeliest token; 1 leaves the model's distribution as it is.
   function new_sampler(n_vocab, temperature) result(sampler)
      integer, intent(in) :: n_vocab
      real(c_float), intent(in) :: temperature
      type(fastgpt_sampler_params) :: params
      type(c_ptr) :: sampler
      params%struct_size = c_sizeof(params)
      params%temperature = temperature
      call must(fastgpt_sampler_create(n_vocab, params, sampler))
   end function

   subroutine print_likeliest(model, probabilities)
      type(c_ptr), intent(in) :: model
      real(c_float), intent(inout) :: probabilities(0:)
      integer(c_size_t) :: n_bytes
      type(c_ptr) :: bytes
      integer :: i, best
      do i = 1, 5
         best = maxloc(probabilities, dim=1) - 1
         bytes = fastgpt_model_token_bytes(model, best, n_bytes)
         print '(f5.1, 2a)', 100 * probabilities(best), '%  ', string_at(bytes, n_bytes)
         probabilities(best) = 0
      end do
   end subroutine

   subroutine must(status)
      integer(c_int), intent(in) :: status
      if (status /= FASTGPT_OK) error stop status_text(status)
   end subroutine

   function argument(i) result(value)
      integer, intent(in) :: i
      character(len=:), allocatable :: value
      integer :: length
      call get_command_argument(i, length=length)
      allocate (character(len=length) :: value)
      call get_command_argument(i, value)
   end function
end program
