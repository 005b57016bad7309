internal import HostSystem

/// Where the current version of the site lies, read from `delta.from`:
///
///     rsync://[user@]host[:port]/module/path/     an rsync daemon
///     user@host:/path/                            ssh, as scp and rsync write it
///     ssh://[user@]host[:port]/path/              the same with a port
///     /path/ or file:///path/                     a folder of this machine
///
/// It always means what is *in* that folder, with or without a slash at the end.
public struct RsyncSource: Sendable, Equatable {
    public enum Place: Sendable, Equatable {
        /// `path` is relative to the module, without slashes around it; empty for the module itself.
        case daemon(user: String?, host: String, port: Int?, module: String, path: String)
        /// `path` is absolute, or relative to the home folder of the user.
        case ssh(user: String?, host: String, port: Int?, path: String)
        /// Absolute, without a slash at its end.
        case folder(path: String)
    }

    /// Why a text is no source. It never holds the text: that could be a password in the wrong place.
    public enum Problem: Error, Sendable, Equatable, CustomStringConvertible {
        case empty, leadingDash, controlCharacter, passwordInAddress, badUser, badHost, badPort, noModule, wildcard
        case notAbsolute, badEncoding, unknownForm, daemonOverSSH, parentComponent, userTwice, sharedPath
        /// Of another setting than `from`: which one, and what is wrong.
        case setting(String, String)

        public var description: String {
            switch self {
            case .empty: "delta.from is empty"
            case .leadingDash: "delta.from begins with a dash: rsync would take it for an option"
            case .controlCharacter: "delta.from holds a line break or another control character"
            case .passwordInAddress: "delta.from holds a password: give it as delta.password, so that it is kept secret"
            case .badUser: "the user in delta.from may hold letters, digits, `.`, `_`, `+` and `-` (not first) only"
            case .badHost: "the host in delta.from is no host name and no address (an IPv6 address stands in [brackets])"
            case .badPort: "the port in delta.from is no number from 1 to 65535"
            case .noModule: "delta.from names no module of the rsync daemon: rsync://host/module/path/"
            case .wildcard: "delta.from holds one of * ? [ ] \\, which the other side would expand"
            case .notAbsolute: "a folder in delta.from must be absolute"
            case .badEncoding: "delta.from is a file URL with a broken %NN sequence"
            case .unknownForm:
                "delta.from is none of rsync://host/module/path/, user@host:/path/, ssh://user@host/path/ and /path/"
            case .daemonOverSSH: "delta.from: write rsync://host/module/path/ in place of host::module/path"
            case .parentComponent: "delta.from holds a `..`"
            case .userTwice: "delta.user and the user in delta.from differ"
            case .sharedPath: "a shared path must lie below the release"
            case .setting(let name, let what): "delta.\(name) \(what)"
            }
        }
    }

    public let place: Place

    public init(parsing text: String) throws(Problem) {
        if text.isEmpty { throw .empty }
        if text.hasPrefix("-") { throw .leadingDash }
        guard Self.isClean(text) else { throw .controlCharacter }
        if let rest = Self.suffix(of: text, after: "rsync://") {
            place = try Self.daemon(rest)
        } else if let rest = Self.suffix(of: text, after: "ssh://") {
            place = try Self.sshURL(rest)
        } else if let rest = Self.suffix(of: text, after: "file://") {
            place = .folder(path: try Self.folder(try Self.decoded(rest)))
        } else if text.hasPrefix("/") {
            place = .folder(path: try Self.folder(text))
        } else if text.contains("://") {
            throw .unknownForm
        } else {
            place = try Self.scp(text)
        }
    }

    /// The operand for rsync, with the slash that means "what is in it".
    public var operand: String { root + "/" }

    /// The operand for one file in it.
    public func operand(of file: String) -> String { root + "/" + file }

    var isFolder: Bool {
        if case .folder = place { return true }
        return false
    }

    private var root: String {
        switch place {
        case .daemon(let user, let host, let port, let module, let path):
            let user = user.map { $0 + "@" } ?? ""
            let port = port.map { ":\($0)" } ?? ""
            return "rsync://\(user)\(Self.bracketed(host))\(port)/\(module)" + (path.isEmpty ? "" : "/" + path)
        case .ssh(let user, let host, _, let path):
            return (user.map { $0 + "@" } ?? "") + Self.bracketed(host) + ":" + path
        case .folder(let path):
            return path
        }
    }

    /// The same place as another user, where the place has none yet.
    func with(user wanted: String?) throws(Problem) -> RsyncSource {
        guard let wanted else { return self }
        guard Self.isUser(wanted) else { throw .setting("user", "is no user name") }
        switch place {
        case .daemon(let user, let host, let port, let module, let path):
            if user ?? wanted != wanted { throw .userTwice }
            return RsyncSource(place: .daemon(user: wanted, host: host, port: port, module: module, path: path))
        case .ssh(let user, let host, let port, let path):
            if user ?? wanted != wanted { throw .userTwice }
            return RsyncSource(place: .ssh(user: wanted, host: host, port: port, path: path))
        case .folder:
            return self
        }
    }

    private init(place: Place) { self.place = place }

    // MARK: forms

    private static func daemon(_ rest: String) throws(Problem) -> Place {
        let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let (user, host, port) = try authority(parts[0])
        guard parts.count == 2 else { throw .noModule }
        let components = try components(parts[1])
        guard let module = components.first else { throw .noModule }
        return .daemon(
            user: user, host: host, port: port, module: module, path: components.dropFirst().joined(separator: "/"))
    }

    private static func sshURL(_ rest: String) throws(Problem) -> Place {
        let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let (user, host, port) = try authority(parts[0])
        guard parts.count == 2 else { throw .notAbsolute }
        return .ssh(user: user, host: host, port: port, path: "/" + (try components(parts[1])).joined(separator: "/"))
    }

    private static func scp(_ text: String) throws(Problem) -> Place {
        // The colon behind the host: in [brackets] an IPv6 address has colons of its own.
        let start = text.lastIndex(of: "]").map { text.index(after: $0) } ?? text.startIndex
        guard let colon = text[start...].firstIndex(of: ":") else {
            throw text.contains("@") ? .unknownForm : .notAbsolute
        }
        let path = String(text[text.index(after: colon)...])
        if path.hasPrefix(":") { throw .daemonOverSSH }
        let (user, host, port) = try authority(String(text[..<colon]))
        guard port == nil else { throw .unknownForm }
        let joined = try components(path).joined(separator: "/")
        // `host:` alone would be the whole home folder of the user there.
        if path.isEmpty || joined.hasPrefix("-") { throw .unknownForm }
        return .ssh(user: user, host: host, port: nil, path: path.hasPrefix("/") ? "/" + joined : joined)
    }

    private static func folder(_ text: String) throws(Problem) -> String {
        guard text.hasPrefix("/") else { throw .notAbsolute }
        guard isClean(text) else { throw .controlCharacter }
        // rsync expands no wildcard of a local path: any name will do.
        let parts = text.split(separator: "/")
        if parts.contains("..") { throw .parentComponent }
        if parts.isEmpty { throw .unknownForm }
        return "/" + parts.joined(separator: "/")
    }

    /// Without empty components and `.`.
    private static func components(_ path: String) throws(Problem) -> [String] {
        if path.contains(where: { "*?[]\\".contains($0) }) { throw .wildcard }
        let parts = path.split(separator: "/").map(String.init).filter { $0 != "." }
        if parts.contains("..") { throw .parentComponent }
        return parts
    }

    private static func authority(_ text: String) throws(Problem) -> (user: String?, host: String, port: Int?) {
        var rest = Substring(text)
        var user: String?
        if let at = rest.lastIndex(of: "@") {
            let name = String(rest[..<at])
            if name.contains(":") { throw .passwordInAddress }
            guard isUser(name) else { throw .badUser }
            user = name
            rest = rest[rest.index(after: at)...]
        }
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { throw .badHost }
            let host = String(rest[rest.index(after: rest.startIndex)..<end])
            let scope = host.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
            guard host.contains(":"), scope[0].allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }),
                scope.count == 1 || isName(String(scope[1]))
            else { throw .badHost }
            return (user, host, try port(rest[rest.index(after: end)...]))
        }
        let end = rest.firstIndex(of: ":") ?? rest.endIndex
        let host = String(rest[..<end])
        guard isName(host) else { throw .badHost }
        return (user, host, try port(rest[end...]))
    }

    private static func port(_ text: Substring) throws(Problem) -> Int? {
        if text.isEmpty { return nil }
        guard text.hasPrefix(":"), let number = UInt16(text.dropFirst()), number > 0 else { throw .badPort }
        return Int(number)
    }

    /// %NN of a file URL.
    private static func decoded(_ text: String) throws(Problem) -> String {
        var bytes: [UInt8] = []
        var rest = Substring(text).utf8
        while let byte = rest.popFirst() {
            guard byte == 0x25 else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                throw .badEncoding
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        guard let text = String(validating: bytes, as: UTF8.self) else { throw .badEncoding }
        return text
    }

    // MARK: characters

    private static func suffix(of text: String, after prefix: String) -> String? {
        text.prefix(prefix.count).lowercased() == prefix ? String(text.dropFirst(prefix.count)) : nil
    }

    private static func bracketed(_ host: String) -> String { host.contains(":") ? "[\(host)]" : host }

    static func isClean(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control }
    }

    static func isUser(_ text: String) -> Bool {
        !text.isEmpty && !text.hasPrefix("-")
            && text.utf8.allSatisfy { isWordByte($0) || $0 == 0x2e || $0 == 0x2d || $0 == 0x2b }
    }

    private static func isName(_ text: String) -> Bool {
        !text.isEmpty && !text.hasPrefix("-") && text.utf8.allSatisfy { isWordByte($0) || $0 == 0x2e || $0 == 0x2d }
    }

    private static func isWordByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x5f: true
        default: false
        }
    }
}
