internal import CArchive
internal import CBuild
internal import CCurl
internal import CIsal
internal import COpenSSL
internal import CZlib

/// What this binary is made of. A static binary gets no updates from its distribution: whoever runs it must be able to tell
/// which versions of the libraries are inside.
public enum BuildInformation {
    public static let version = "0.1.0"
    public static var commit: String { String(cString: amorce_build_commit()) }
    #if arch(x86_64)
        public static let target = "x86_64-linux-gnu"
    #elseif arch(arm64)
        public static let target = "aarch64-linux-gnu"
    #endif

    /// One line a library, each with its version as the library itself tells it, or as its headers do where it does not.
    public static var libraries: [String] {
        [
            curl,
            String(cString: archive_version_details()),
            "zlib " + String(cString: zlibVersion()),
            "ISA-L " + String(cString: amorce_isal_version()),
            String(cString: OpenSSL_version(OPENSSL_VERSION)),
        ]
    }

    /// Not curl_version(): that one asks the LDAP library too, which is no part of a static binary.
    private static var curl: String {
        guard let information = amorce_curl_version_info() else { return "libcurl" }
        func text(_ pointer: UnsafePointer<CChar>?) -> String { pointer.map { String(cString: $0) } ?? "" }
        let all = information.pointee
        return "libcurl \(text(all.version)) \(text(all.ssl_version)) nghttp2/\(text(all.nghttp2_version))"
    }

    public static var description: String {
        (["amorce \(version) (commit \(commit), \(target))"] + libraries).joined(separator: "\n")
    }
}
