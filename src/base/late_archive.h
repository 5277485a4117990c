#pragma once
/*
 * late_archive.h - libarchive, loaded when it is first used (late.h). Instead of <archive.h> and <archive_entry.h>.
 */
#include <archive.h>
#include <archive_entry.h>

#define LATE_ARCHIVE(X)                         \
    X(archive_entry_filetype)                   \
    X(archive_entry_gid)                        \
    X(archive_entry_hardlink)                   \
    X(archive_entry_hardlink_utf8)              \
    X(archive_entry_mtime)                      \
    X(archive_entry_mtime_nsec)                 \
    X(archive_entry_pathname)                   \
    X(archive_entry_pathname_utf8)              \
    X(archive_entry_perm)                       \
    X(archive_entry_size)                       \
    X(archive_entry_symlink)                    \
    X(archive_entry_symlink_utf8)               \
    X(archive_entry_uid)                        \
    X(archive_error_string)                     \
    X(archive_read_data_block)                  \
    X(archive_read_free)                        \
    X(archive_read_new)                         \
    X(archive_read_next_header)                 \
    X(archive_read_open)                        \
    X(archive_read_open_fd)                     \
    X(archive_read_support_format_tar)          \
    X(archive_read_support_format_zip_seekable) \
    X(archive_set_error)

struct late_archive {
#define LATE_MEMBER(f) __typeof__(&(f)) to_##f;
    LATE_ARCHIVE(LATE_MEMBER)
#undef LATE_MEMBER
};
const struct late_archive *late_archive(void);

#define archive_entry_filetype          (late_archive()->to_archive_entry_filetype)
#define archive_entry_gid               (late_archive()->to_archive_entry_gid)
#define archive_entry_hardlink          (late_archive()->to_archive_entry_hardlink)
#define archive_entry_hardlink_utf8     (late_archive()->to_archive_entry_hardlink_utf8)
#define archive_entry_mtime             (late_archive()->to_archive_entry_mtime)
#define archive_entry_mtime_nsec        (late_archive()->to_archive_entry_mtime_nsec)
#define archive_entry_pathname          (late_archive()->to_archive_entry_pathname)
#define archive_entry_pathname_utf8     (late_archive()->to_archive_entry_pathname_utf8)
#define archive_entry_perm              (late_archive()->to_archive_entry_perm)
#define archive_entry_size              (late_archive()->to_archive_entry_size)
#define archive_entry_symlink           (late_archive()->to_archive_entry_symlink)
#define archive_entry_symlink_utf8      (late_archive()->to_archive_entry_symlink_utf8)
#define archive_entry_uid               (late_archive()->to_archive_entry_uid)
#define archive_error_string            (late_archive()->to_archive_error_string)
#define archive_read_data_block         (late_archive()->to_archive_read_data_block)
#define archive_read_free               (late_archive()->to_archive_read_free)
#define archive_read_new                (late_archive()->to_archive_read_new)
#define archive_read_next_header        (late_archive()->to_archive_read_next_header)
#define archive_read_open               (late_archive()->to_archive_read_open)
#define archive_read_open_fd            (late_archive()->to_archive_read_open_fd)
#define archive_read_support_format_tar (late_archive()->to_archive_read_support_format_tar)
#define archive_read_support_format_zip_seekable \
    (late_archive()->to_archive_read_support_format_zip_seekable)
#define archive_set_error (late_archive()->to_archive_set_error)
