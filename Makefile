# cworker: the only makefile. See README.md; `make help` lists the targets.
#
#   make            build everything under build/
#   make check      install what is missing, build, run every test
#   make demo       the whole path on loopback
#   SAN=address,undefined or SAN=thread builds apart, under build-<san>/

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := $(shell cat VERSION 2>/dev/null || echo 0)
SAN ?=
comma := ,
BUILD := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(filter clang%,$(notdir $(CC))),-clang)

WARN := -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2 -Wundef
HARDEN := -fstack-protector-strong -fPIE -fno-strict-aliasing $(if $(SAN),,-D_FORTIFY_SOURCE=2) \
          $(if $(filter x86_64,$(shell uname -m)),-fcf-protection)
OPT := -O2 -g
CPPFLAGS += -D_GNU_SOURCE -I. -Isrc $(if $(filter tests/%,$<),-Itests/unit) -DCW_VERSION='"$(VERSION)"' -DCW_PREFIX='"$(PREFIX)"'
CFLAGS_ALL = -std=gnu17 $(OPT) $(WARN) $(HARDEN) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer) $(CFLAGS)
LDFLAGS_ALL = -pie -Wl,-z,relro,-z,now,-z,noexecstack $(if $(SAN),-fsanitize=$(SAN)) $(LDFLAGS)
BANNED := $(wildcard src/base/banned.h)

pkgs_main := libcurl libcjson libarchive libnl-3.0 libnl-route-3.0 libmnl libnftnl libssl libcrypto libzstd libseccomp libcap libuv yaml-0.1
PKG_CFLAGS := $(shell pkg-config --cflags $(pkgs_main) 2>/dev/null)
# libcurl, libarchive, libssl and libcrypto are loaded when they are first used (src/base/late.h)
PKG_LIBS := $(shell pkg-config --libs $(filter-out libcurl libarchive libssl libcrypto,$(pkgs_main)) 2>/dev/null) -lisal -lwslay -lcgroup -ldl -lm -lpthread

rooms := base oci netns runtime worker
src_base := $(wildcard src/base/*.c)
src_oci := $(wildcard oci/*.c)
src_netns := $(wildcard netns/*.c)
src_runtime := $(wildcard runtime/*.c)
src_worker := $(wildcard src/worker/*.c)
programs := $(patsubst src/cmd/%.c,%,$(filter src/cmd/cworkerd.c src/cmd/cwrun.c src/cmd/cwrt.c src/cmd/cwshim.c,$(wildcard src/cmd/*.c)))
units := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*.c))
fuzzers := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
LIBS := $(foreach r,worker oci netns runtime base,$(BUILD)/lib/$(r).a)

.PHONY: all tests unit-programs check unit lint fuzz bench conformance soak leak-net demo install man deb clean help deps coverage vm-shell print-%
all: $(programs:%=$(BUILD)/bin/%) $(if $(filter cworkerd,$(programs)),$(BUILD)/bin/cl-worker)

$(BUILD)/obj/%.o: %.c Makefile $(BANNED)
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS_ALL) $(if $(BANNED),-include $(BANNED)) -MMD -MP -c $< -o $@

define room_rule
$(BUILD)/lib/$(1).a: $(call obj,$(src_$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach r,$(rooms),$(eval $(call room_rule,$(r))))

# cwshim and cwrt need runtime/ and base only, and none of the big libraries (style: one tiny process a run).
cwshim_libs := $(BUILD)/lib/runtime.a $(BUILD)/lib/base.a
cwrt_libs := $(cwshim_libs)
cworkerd_libs := $(LIBS)
cwrun_libs := $(LIBS)
# libseccomp goes in whole: one library less for the loader to map and relocate at each start.
small_link := $(shell pkg-config --libs libcjson libcap libcrypto 2>/dev/null) -Wl,-Bstatic -lseccomp -Wl,-Bdynamic -lcgroup -ldl -lpthread
# One a run, for as long as the run lives: static, and so a few pages (tests/lint/elf.sh holds it there). Sanitizers cannot.
ifeq ($(SAN),)
cwshim_link :=
cwshim_ldflags := -static-pie
endif
cwrt_link := $(small_link)
cworkerd_link := $(PKG_LIBS)
cwrun_link := $(PKG_LIBS)

define program_rule
$(BUILD)/bin/$(1): $(call obj,src/cmd/$(1).c $(wildcard src/cmd/$(1)_*.c)) $($(1)_libs)
	@mkdir -p $$(@D)
	@echo "  LD $$@"
	@$(CC) $(CFLAGS_ALL) $(if $($(1)_ldflags),$(filter-out -pie,$(LDFLAGS_ALL)),$(LDFLAGS_ALL)) $($(1)_ldflags) -Wl,--gc-sections -o $$@ $$(filter %.o,$$^) -Wl,--start-group $($(1)_libs) -Wl,--end-group -Wl,--as-needed $($(1)_link)
endef
$(foreach p,$(programs),$(eval $(call program_rule,$(p))))

$(BUILD)/bin/cl-worker: $(BUILD)/bin/cworkerd
	@ln -sfn cworkerd $@

$(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIBS)
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(PKG_LIBS) -lcmocka -lz

$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(LIBS)
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(PKG_LIBS) -lz

$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(PKG_LIBS) -lz

$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIBS)
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(PKG_LIBS)

.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

tests: all $(units:%=$(BUILD)/tests/unit/%)
clean:
	rm -rf build build-*
print-%:
	@echo '$($*)'

# ------------------------------------------------------------------------------------------------ tests

deps:
	@tests/deps.sh build run test lint

tests: $(fuzzers:%=$(BUILD)/tests/fuzz/%)

# Everything, on a fresh machine too: what is missing is installed, then one make builds with all cores.
# The unit tests and fuzz targets run under the sanitizers as well: memory and undefined behaviour for all, races for
# those that have threads.
THREADED := $(patsubst tests/unit/%.c,%,$(shell grep -ls '^/\* threads: yes' tests/unit/*.c 2>/dev/null))
check: deps
	@$(MAKE) --no-print-directory -j$$(nproc) tests
ifeq ($(SAN),)
	@$(MAKE) --no-print-directory -j$$(nproc) SAN=address,undefined unit-programs
	@$(MAKE) --no-print-directory -j$$(nproc) SAN=thread $(THREADED:%=build-thread/tests/unit/%)
	@tests/run --build $(BUILD) --also build-address-undefined --also build-thread
else
	@tests/run --build $(BUILD)
endif

unit-programs: $(units:%=$(BUILD)/tests/unit/%) $(fuzzers:%=$(BUILD)/tests/fuzz/%)

unit: tests
	@tests/run --build $(BUILD) --kind unit

fuzz: deps
	@tests/fuzz/run $(or $(SECONDS_EACH),60)

lint: deps
	@$(MAKE) --no-print-directory -s -j$$(nproc) all
	@for f in tests/lint/*.sh; do echo "lint: $$f"; CW_BUILD=$(BUILD) $$f || exit 1; done

coverage:
	@tests/lint/coverage.py

bench:
	@tests/deps.sh build test bench
	@$(MAKE) --no-print-directory -s -j$$(nproc) all $(BUILD)/bench/pull_resident
	@tests/bench/run

# The long form of what `check` does in small: hundreds of kill -9 at random instants, and every named one.
soak: tests
	CW_SOAK_KILLS=$(or $(KILLS),300) CW_SOAK_STEP=1 CW_BUILD=$(BUILD) tests/e2e/worker_soak.py

# Likewise for networks: 2000 made and killed, 1000 at once, a crash at every point at which anything changes.
leak-net: tests
	NET_LEAK_RUNS=$(or $(NETWORKS),2000) CW_BUILD=$(BUILD) tests/one 3000 tests/e2e/net_nothing_is_left.py
	NET_AT_ONCE=1000 CW_BUILD=$(BUILD) tests/one 3000 tests/e2e/net_addresses.py
	NET_CRASH_STEP=1 CW_BUILD=$(BUILD) tests/one 3000 tests/e2e/net_crash_points.py

# Other people's runtime tests: make conformance RUNTIME_TOOLS=DIR CRUN=DIR (see tests/conformance/run).
conformance:
	@tests/deps.sh build test bench
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@RUNTIME_TOOLS='$(RUNTIME_TOOLS)' CRUN='$(CRUN)' tests/conformance/run

demo:
	@tests/deps.sh build test
	@$(MAKE) --no-print-directory -s -j$$(nproc) all
	@tests/demo

vm-shell:
	@tests/vm/vm-shell

# ------------------------------------------------------------------------------------------------ install

# made by the programs themselves, from their flag tables
man: all
	@configs/man/make-pages $(BUILD)/bin $(BUILD)/man '$(VERSION)'

LIBEXEC := $(PREFIX)/libexec/cworker
install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBEXEC) $(DESTDIR)$(PREFIX)/share/man/man8 \
	    $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/cworker
	install -m 755 $(BUILD)/bin/cworkerd $(BUILD)/bin/cwrun $(BUILD)/bin/cwrt $(DESTDIR)$(PREFIX)/bin/
	ln -sfn cworkerd $(DESTDIR)$(PREFIX)/bin/cl-worker
	install -m 755 $(BUILD)/bin/cwshim $(DESTDIR)$(LIBEXEC)/
	install -m 644 $(BUILD)/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	ln -sfn cworkerd.8 $(DESTDIR)$(PREFIX)/share/man/man8/cl-worker.8
	sed 's|@PREFIX@|$(PREFIX)|g' configs/cworkerd.service | \
	    install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/cworkerd.service
	install -m 644 configs/cworker-runs.service $(DESTDIR)$(PREFIX)/lib/systemd/system/
	[ -e $(DESTDIR)/etc/cworker/cworkerd.conf ] || install -m 600 configs/cworkerd.conf $(DESTDIR)/etc/cworker/

# build/cworker_VERSION_ARCH.deb; programs are built for /usr apart, because they hold the path of cwshim
deb:
	@tests/deps.sh build
	@$(MAKE) --no-print-directory -s -j$$(nproc) PREFIX=/usr BUILD=build-deb all man
	@rm -rf build-deb/stage
	@$(MAKE) --no-print-directory -s PREFIX=/usr BUILD=build-deb DESTDIR=build-deb/stage install
	@mkdir -p build
	@configs/deb/build build-deb/stage $(VERSION) build

help:
	@sed -n 's/^#   //p' Makefile
	@echo 'targets: all check unit lint fuzz bench conformance soak leak-net demo install man deb vm-shell coverage clean'
	@echo 'settings: CC=clang SAN=address,undefined|thread PREFIX=/usr/local DESTDIR='
