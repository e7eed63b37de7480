/* os_windows_files.c - the files of os.h for Windows: models are mapped or read, states written whole or not at all.
 * Paths are UTF-8. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/os_files.h"
#include "common/status.h"

/* ---- Names and errors ---- */

/* A reason in English, as the other messages are. */
static const char *reason_of(DWORD code) {
    switch (code) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:    return "No such file or directory";
    case ERROR_ACCESS_DENIED:     return "Permission denied";
    case ERROR_SHARING_VIOLATION: return "another program holds it open";
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:  return "No space left on device";
    case ERROR_WRITE_PROTECT:     return "Read-only file system";
    case ERROR_INVALID_NAME:      return "no such name is possible";
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_COMMITMENT_LIMIT:  return "Cannot allocate memory";
    default:                      return NULL;
    }
}

static fastgpt_status fail_for(fastgpt_error *error, const char *path, const char *what) {
    DWORD code = GetLastError();
    const char *reason = reason_of(code);
    if (reason) return fail(error, FASTGPT_ERR_IO, "%s: %s%s", path, what, reason);
    return fail(error, FASTGPT_ERR_IO, "%s: %sWindows error %lu", path, what, (unsigned long)code);
}

static wchar_t *utf16(const char *text, size_t n_more) {
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
    wchar_t *wide = n > 0 ? malloc(((size_t)n + n_more) * sizeof *wide) : NULL;
    if (wide) MultiByteToWideChar(CP_UTF8, 0, text, -1, wide, n);
    return wide;
}

/* The whole path, with the mark that lets it be longer than 260 characters; devices such as NUL have one of their own.
 * To be freed. */
static wchar_t *full_path(const char *path) {
    static const wchar_t mark[] = L"\\\\?\\", device[] = L"\\\\";
    enum { N_MARK = 4 };
    wchar_t *wide = utf16(path, 0);
    DWORD n = wide ? GetFullPathNameW(wide, 0, NULL, NULL) : 0;
    wchar_t *full = n ? malloc((n + N_MARK) * sizeof *full) : NULL;
    if (full) {
        memcpy(full, mark, N_MARK * sizeof *full);
        GetFullPathNameW(wide, n, full + N_MARK, NULL);
        if (wcsncmp(full + N_MARK, device, 2) == 0) memmove(full, full + N_MARK, n * sizeof *full);
    }
    free(wide);
    return full;
}

/* ---- Reading ---- */

static HANDLE open_to_read(const wchar_t *path) {
    DWORD sharing = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    return CreateFileW(path, GENERIC_READ, sharing, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
}

static fastgpt_status map_file(os_file *file, HANDLE handle, const char *path, fastgpt_error *error) {
    HANDLE mapping = CreateFileMappingW(handle, NULL, PAGE_READONLY, 0, 0, NULL);
    void *data = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    if (!data) fail_for(error, path, "cannot be mapped: ");
    if (mapping) CloseHandle(mapping); /* the view holds it */
    if (!data) return FASTGPT_ERR_IO;
    file->data = data;
    file->mapped = true;
    return FASTGPT_OK;
}

/* An os_reader of a handle. */
static fastgpt_status read_all(void *handle, uint8_t *data, size_t n, const char *path, fastgpt_error *error) {
    enum { MOST = 1 << 30 };
    for (size_t done = 0; done < n;) {
        DWORD wanted = n - done < MOST ? (DWORD)(n - done) : MOST, some = 0;
        if (!ReadFile(handle, data + done, wanted, &some, NULL)) return fail_for(error, path, "");
        if (some == 0) return fail(error, FASTGPT_ERR_IO, "%s: became shorter while read", path);
        done += some;
    }
    return FASTGPT_OK;
}

static fastgpt_status load_handle(os_file *file, HANDLE handle, const char *path, const os_file_check *copy,
                                  fastgpt_error *error) {
    LARGE_INTEGER size;
    if (GetFileType(handle) != FILE_TYPE_DISK) return fail(error, FASTGPT_ERR_IO, "%s: is not a regular file", path);
    if (!GetFileSizeEx(handle, &size)) return fail_for(error, path, "");
    if (size.QuadPart == 0) return fail(error, FASTGPT_ERR_FORMAT, "%s: is empty", path);
    file->n_bytes = (size_t)size.QuadPart;
    return copy ? os_file_read(file, read_all, handle, path, copy, error) : map_file(file, handle, path, error);
}

static bool is_folder(const wchar_t *path) {
    DWORD attributes = GetFileAttributesW(path);
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);
}

fastgpt_status os_file_open(os_file *file, const char *path, const os_file_check *copy, fastgpt_error *error) {
    memset(file, 0, sizeof *file);
    wchar_t *full = full_path(path);
    if (!full) return fail(error, FASTGPT_ERR_IO, "%s: is no file name", path);
    fastgpt_status status;
    HANDLE handle = INVALID_HANDLE_VALUE;
    if (is_folder(full)) status = fail(error, FASTGPT_ERR_IO, "%s: is a directory", path);
    else if ((handle = open_to_read(full)) == INVALID_HANDLE_VALUE) status = fail_for(error, path, "");
    else status = load_handle(file, handle, path, copy, error);
    if (handle != INVALID_HANDLE_VALUE) CloseHandle(handle);
    free(full);
    return status;
}

void os_file_close(os_file *file) {
    if (file->mapped) UnmapViewOfFile(file->data);
    if (file->owned) os_free((void *)file->data);
    memset(file, 0, sizeof *file);
}

bool os_file_begins(const char *path, const void *bytes, size_t n) {
    uint8_t first[OS_FIRST_BYTES];
    wchar_t *full = full_path(path);
    HANDLE handle = full && !is_folder(full) ? open_to_read(full) : INVALID_HANDLE_VALUE;
    free(full);
    if (handle == INVALID_HANDLE_VALUE) return false;
    bool same = GetFileType(handle) == FILE_TYPE_DISK && read_all(handle, first, n, path, NULL) == FASTGPT_OK &&
                memcmp(first, bytes, n) == 0;
    CloseHandle(handle);
    return same;
}

/* ---- Writing ---- */

static bool write_all(HANDLE handle, const uint8_t *data, size_t n_bytes) {
    enum { MOST = 1 << 30 };
    for (size_t done = 0; done < n_bytes;) {
        DWORD wanted = n_bytes - done < MOST ? (DWORD)(n_bytes - done) : MOST, some = 0;
        if (!WriteFile(handle, data + done, wanted, &some, NULL)) return false;
        done += some;
    }
    return true;
}

/* Writes and closes; the error of the first thing that failed is GetLastError's. */
static bool write_and_close(HANDLE handle, const void *data, size_t n_bytes, bool to_disk) {
    if (handle == INVALID_HANDLE_VALUE) return false;
    bool done = write_all(handle, data, n_bytes) && (!to_disk || FlushFileBuffers(handle));
    DWORD code = GetLastError();
    CloseHandle(handle);
    SetLastError(code);
    return done;
}

/* A name beside the file that nobody else takes: the process and a count are in it. */
static wchar_t *part_name(const wchar_t *path) {
    static volatile LONG count;
    enum { N_MORE = 64 };
    const wchar_t *slash = wcsrchr(path, L'\\');
    size_t n_folder = slash ? (size_t)(slash - path) + 1 : 0;
    wchar_t *name = malloc((n_folder + N_MORE) * sizeof *name);
    if (!name) return NULL;
    memcpy(name, path, n_folder * sizeof *name);
    swprintf(name + n_folder, N_MORE, L".fastgpt-c-%lx-%lx.part", (unsigned long)GetCurrentProcessId(),
             (unsigned long)InterlockedIncrement(&count));
    return name;
}

static bool replace_file(const wchar_t *path, const void *data, size_t n_bytes) {
    wchar_t *part = part_name(path);
    if (!part) {
        SetLastError(ERROR_NOT_ENOUGH_MEMORY);
        return false;
    }
    HANDLE handle = CreateFileW(part, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    bool made = handle != INVALID_HANDLE_VALUE;
    bool done = write_and_close(handle, data, n_bytes, true) &&
                MoveFileExW(part, path, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH);
    DWORD code = GetLastError();
    if (made && !done) DeleteFileW(part);
    free(part);
    SetLastError(code);
    return done;
}

/* Whether a device such as NUL, or a pipe, stands under the name. */
static bool is_device(const wchar_t *full) { return wcsncmp(full, L"\\\\.\\", 4) == 0; }

fastgpt_status os_file_write(const char *path, const void *data, size_t n_bytes, fastgpt_error *error) {
    wchar_t *full = full_path(path);
    if (!full) return fail(error, FASTGPT_ERR_IO, "%s: is no file name", path);
    bool written, folder = is_folder(full);
    if (folder) written = false;
    else if (is_device(full))
        written = write_and_close(
            CreateFileW(full, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL), data,
            n_bytes, false);
    else written = replace_file(full, data, n_bytes);
    fastgpt_status status = FASTGPT_OK;
    if (folder) status = fail(error, FASTGPT_ERR_IO, "%s: cannot be written: it is a folder; name a file", path);
    else if (!written) status = fail_for(error, path, "cannot be written: ");
    free(full);
    return status;
}
