# The releases of the third-party libraries that are built in where the system's are not used: for deps.cmake, which
# fetches them while CMake configures, and for fetch_deps.cmake, which does it before.
set(ALLMEM_DEPS protozero simdjson pcre2 utf8proc)
set(ALLMEM_protozero_URL https://github.com/mapbox/protozero/archive/refs/tags/v1.8.1.tar.gz)
set(ALLMEM_protozero_SHA256 6c7a896f1dc08435e8cd4f3780ff688cd0bfce6890599b755f6f3cb36398dc25)
set(ALLMEM_simdjson_URL https://github.com/simdjson/simdjson/archive/refs/tags/v3.12.3.tar.gz)
set(ALLMEM_simdjson_SHA256 d0af071f2f4187d8b26b556e83ef832b634bd5feb4e2f537b9dabbd334d4e334)
set(ALLMEM_pcre2_URL https://github.com/PCRE2Project/pcre2/releases/download/pcre2-10.46/pcre2-10.46.tar.gz)
set(ALLMEM_pcre2_SHA256 8d28d7f2c3b970c3a4bf3776bcbb5adfc923183ce74bc8df1ebaad8c1985bd07)
set(ALLMEM_utf8proc_URL https://github.com/JuliaStrings/utf8proc/archive/refs/tags/v2.9.0.tar.gz)
set(ALLMEM_utf8proc_SHA256 18c1626e9fc5a2e192311e36b3010bfc698078f692888940f1fa150547abb0c1)
