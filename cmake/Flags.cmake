# Warnings, hardening and sanitizers, for every target of the project: spb_target(NAME).
set(SPB_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual
    -Wwrite-strings -Wformat=2 -Wvla -Wundef -Wnull-dereference)
set(SPB_C_WARNINGS -Wstrict-prototypes -Wmissing-prototypes)
if(SPB_WERROR)
    list(APPEND SPB_WARNINGS -Werror)
endif()

function(spb_target name)
    target_compile_options(${name} PRIVATE ${SPB_WARNINGS}
        $<$<COMPILE_LANGUAGE:C>:${SPB_C_WARNINGS}>
        -fstack-protector-strong -fstack-clash-protection -fcf-protection)
    target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/lib)
    if(SPB_SANITIZE)
        target_compile_options(${name} PRIVATE -fsanitize=${SPB_SANITIZE}
            -fno-sanitize-recover=all -fno-omit-frame-pointer)
        target_link_options(${name} PRIVATE -fsanitize=${SPB_SANITIZE})
    else()
        target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-U_FORTIFY_SOURCE>
            $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=3>)
    endif()
    target_link_options(${name} PRIVATE -Wl,-z,relro,-z,now)
endfunction()

# An executable of the project: position independent and hardened.
function(spb_executable name)
    spb_target(${name})
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_link_options(${name} PRIVATE -pie)
endfunction()

# Release keeps assertions of the project on (they are not <assert.h>'s) and optimises at -O2.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
