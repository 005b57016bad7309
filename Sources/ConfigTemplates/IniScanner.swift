/// php.ini and its relatives, and the pools of PHP-FPM: both are read by Zend/zend_ini_scanner.l in its normal mode. There
/// `'…'` holds anything but `'`, raw, line ends included, and neighbouring pieces join, so every byte string has a form:
/// `'it'"'"'s'`. (But `''` is no piece: it joins to nothing, so inside the author's own `'…'` there is no way out and back.)
struct IniScanner: PlaceScanner {
    private enum Place: Equatable {
        case key
        case section
        case comment
        case value
        case single
        case double
        /// `${…}`; back to double quotes or not.
        case variable(inDouble: Bool)
    }
    let isPool: Bool
    private var place = Place.key
    private var key: [UInt8] = []
    /// The author's bytes since the place began or the last value stood.
    private var tail: [UInt8] = []
    private var isEscaped = false
    /// Whether the entry's value has some text already.
    private var hasText = false

    init(isPool: Bool) { self.isPool = isPool }

    mutating func read(_ byte: UInt8) -> String? {
        if byte == .newline, place == .key || place == .section || place == .comment || place == .value {
            place = .key
            key = []
            tail = []
            hasText = false
            return nil
        }
        tail.append(byte)
        switch place {
        case .section, .comment: break
        case .key:
            if byte == UInt8(ascii: ";") {
                place = .comment
            } else if byte == UInt8(ascii: "["), key.allSatisfy(\.isBlank) {
                place = .section
            } else if byte == .equals {
                place = .value
                tail = []
            } else {
                key.append(byte)
            }
        case .value:
            if byte == UInt8(ascii: ";") {
                place = .comment
            } else if byte == .singleQuote || byte == .doubleQuote {
                place = byte == .singleQuote ? .single : .double
                tail = []
            } else if byte == UInt8(ascii: "{"), tail.dropLast().last == .dollar {
                place = .variable(inDouble: false)
            } else if !byte.isBlank, byte != .carriageReturn {
                hasText = true
            }
        case .single:
            if byte == .singleQuote { leave() } else { hasText = true }
        case .double:
            if byte != .doubleQuote { hasText = true }
            if isEscaped {
                isEscaped = false
            } else if byte == .backslash {
                isEscaped = true
            } else if byte == .doubleQuote {
                leave()
            } else if byte == UInt8(ascii: "{"), tail.dropLast().last == .dollar {
                place = .variable(inDouble: true)
            }
        case .variable(let inDouble):
            if byte == UInt8(ascii: "}") {
                place = inDouble ? .double : .value
                tail = []
            }
        }
        return nil
    }

    private mutating func leave() {
        place = .value
        tail = []
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        let bytes = try value.bytes("On", "Off")
        switch place {
        case .comment:
            return try CommentText.quote(value)
        case .key, .section:
            guard !bytes.isEmpty, bytes.consists(ofWordsAnd: ".-") else {
                throw Refusal(
                    "stands in the name of "
                        + (place == .key ? "an entry" : "a section") + ", which takes letters, digits, _, . and - only")
            }
            if place == .key { key += bytes }
            return bytes
        case .variable: throw .place("${…}")
        case .value, .single, .double: break
        }
        if isEscaped || tail.last == .dollar {
            throw .place("an escape or $ that the template began", "write the tag outside the quotes")
        }
        if isPool { try refuseInPool(bytes, before: following) }
        defer {
            tail = []
            hasText = hasText || !bytes.isEmpty
        }
        switch (place, value) {
        case (.value, .boolean): return bytes
        case (.single, _):
            guard !bytes.contains(.singleQuote) else {
                throw Refusal("has a single quote, which has no form inside '…' here; write the tag without quotes or in \"…\"")
            }
            return bytes
        case (.double, _):
            if bytes.consists(ofWordsAnd: " ./:@,+-") { return bytes }
            return [.doubleQuote] + Self.pieces(bytes) + [.doubleQuote]
        default:
            if !bytes.isEmpty, bytes.allSatisfy(\.isDigit) || bytes.first == UInt8(ascii: "/") && bytes.consists(ofWordsAnd: "/.-") {
                return bytes
            }
            return Self.pieces(bytes)
        }
    }

    private static func pieces(_ bytes: [UInt8]) -> [UInt8] {
        if bytes.isEmpty { return Array("\"\"".utf8) }
        var text: [UInt8] = []
        for run in bytes.split(separator: .singleQuote, omittingEmptySubsequences: false).enumerated() {
            if run.offset > 0 { text += Array("\"'\"".utf8) }
            if !run.element.isEmpty { text += [.singleQuote] + run.element + [.singleQuote] }
        }
        return text
    }

    /// What PHP-FPM does to the strings that its INI reader gives it (sapi/fpm/fpm/fpm_conf.c, fpm_env.c).
    private func refuseInPool(_ bytes: [UInt8], before following: Following) throws(Refusal) {
        if bytes.contains(.newline) { throw Refusal("has a line end, and PHP-FPM reads its pools line by line") }
        if bytes.contains("$pool") { throw Refusal("has $pool in it, which PHP-FPM replaces by the pool's name everywhere") }
        let isLast = following.endsLine { $0 == .singleQuote || $0 == .doubleQuote || $0 == UInt8(ascii: ";") }
        if !isLast, let dollar = bytes.lastIndex(of: .dollar), "$pool".utf8.starts(with: bytes[dollar...]) {
            throw Refusal("ends like $pool, which PHP-FPM replaces by the pool's name, and more follows on its line")
        }
        if hasText { return }
        if bytes.isEmpty && isLast { throw Refusal("is empty, and PHP-FPM takes no empty value") }
        if bytes.first == .dollar, key.trimmed.starts(with: "env[".utf8) {
            throw Refusal("begins with $, by which PHP-FPM names a variable of its own environment")
        }
    }

    func ending() -> String? {
        place == .single || place == .double ? "a quoted value is still open where the template ends" : nil
    }
}
