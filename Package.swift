// swift-tools-version: 6.2
import PackageDescription

// The modules are the architecture: arrows point one way only.
//
//   amorce ──► BootSequence ──► CloudPlatform ──► HostSystem ──► C modules
//                  ├──────────► Backups ─────────────▲
//                  └──────────► ConfigTemplates (pure; imports none of the others)

/// `scripts/build` sets this for the release binary. Debian's static libcurl names Kerberos, LDAP and RTMP functions that no
/// static library provides; `CUnavailable` defines them. A dynamic (debug) build must not, or it would hide the real ones.
let isStatic = Context.environment["AMORCE_STATIC"] != nil

let common: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]
/// Only `HostSystem` and the C modules touch pointers; anywhere else an unsafe construct fails the build.
let safe: [SwiftSetting] = common + [.strictMemorySafety()]

/// What Debian's static libcurl and libarchive need behind them, in link order.
let staticLibraries: [LinkerSetting] =
    isStatic
    ? [
        "curl", "nghttp2", "psl", "idn2", "unistring", "ssh2", "ssl", "crypto", "brotlidec", "brotlicommon", "archive",
        "nettle", "gmp", "zstd", "lzma", "bz2", "lz4", "gcrypt", "gpg-error", "expat", "z",
    ].map { .linkedLibrary($0) } : []

let package = Package(
    name: "amorce",
    products: [.executable(name: "amorce", targets: ["amorce"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        .target(name: "CCurl", linkerSettings: [.linkedLibrary("curl")]),
        .target(name: "CArchive", linkerSettings: [.linkedLibrary("archive")]),
        .target(name: "CZlib", linkerSettings: [.linkedLibrary("z")]),
        .target(name: "CIsal", linkerSettings: [.linkedLibrary("isal")]),
        .target(name: "CZstd", linkerSettings: [.linkedLibrary("zstd")]),
        .target(name: "CLzma", linkerSettings: [.linkedLibrary("lzma")]),
        .target(name: "CBzip2", linkerSettings: [.linkedLibrary("bz2")]),
        .target(name: "COpenSSL", linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),
        .target(name: "CExpat", linkerSettings: [.linkedLibrary("expat")]),
        .target(name: "CLinux"),
        .target(name: "CUnavailable"),
        .target(
            name: "CBuild",
            cSettings: Context.environment["AMORCE_COMMIT"].map { [.define("AMORCE_COMMIT", to: "\"\($0)\"")] } ?? []),

        .target(
            name: "HostSystem",
            dependencies: [
                "CCurl", "CArchive", "CZlib", "CIsal", "CZstd", "CLzma", "CBzip2", "COpenSSL", "CExpat", "CLinux",
                "CBuild",
            ],
            swiftSettings: common),
        .target(name: "CloudPlatform", dependencies: ["HostSystem"], swiftSettings: safe),
        .target(name: "Backups", dependencies: ["HostSystem"], swiftSettings: safe),
        .target(name: "ConfigTemplates", swiftSettings: safe),
        .target(
            name: "BootSequence",
            dependencies: [
                "CloudPlatform", "Backups", "ConfigTemplates", "HostSystem", .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: safe),
        .executableTarget(
            name: "amorce",
            dependencies: [
                "BootSequence", "CloudPlatform", "Backups", "ConfigTemplates", "HostSystem",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ] + (isStatic ? ["CUnavailable"] : []),
            swiftSettings: safe,
            linkerSettings: staticLibraries),

        .target(
            name: "TestSupport", dependencies: ["HostSystem"], path: "Tests/TestSupport", exclude: ["Servers"],
            swiftSettings: common),
        .testTarget(name: "HostSystemTests", dependencies: ["HostSystem", "TestSupport"], swiftSettings: common),
        .testTarget(
            name: "CloudPlatformTests", dependencies: ["CloudPlatform", "HostSystem", "TestSupport"],
            swiftSettings: common),
        .testTarget(
            name: "BackupsTests", dependencies: ["Backups", "HostSystem", "TestSupport"], swiftSettings: common),
        .testTarget(
            name: "ConfigTemplatesTests", dependencies: ["ConfigTemplates", "TestSupport"], swiftSettings: common),
        .testTarget(
            name: "BootSequenceTests",
            dependencies: ["BootSequence", "CloudPlatform", "Backups", "ConfigTemplates", "HostSystem", "TestSupport"],
            swiftSettings: common),
    ],
    swiftLanguageModes: [.v6]
)
