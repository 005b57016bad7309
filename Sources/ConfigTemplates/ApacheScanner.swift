/// Apache httpd's configuration, `.htaccess` included. A line is read whole (server/util.c, `ap_cfg_getline`), a backslash at its
/// end joins the next to it, `${NAME}` is replaced in it wherever it stands (server/core.c, `ap_resolve_env`), and only then is
/// it split into words (`ap_getword_conf`), where a backslash takes the meaning from a quote and from itself. So there is no form
/// for a line end and none for `${`.
struct ApacheScanner: PlaceScanner {
    private enum Place: Equatable {
        /// Between words; before the first one where there is no directive yet.
        case blank
        case word
        case quoted(UInt8)
        case comment
    }
    /// What a directive does with its text once Apache has split the line.
    private enum Meaning {
        case text
        /// `%` begins something, and so does a backslash (`\n`); either stands for itself when it stands twice.
        case format
        /// `%` may begin something, and has no other form.
        case expression
        /// A pattern, an expression, a program, or text that is read once more.
        case language
    }
    private var place = Place.blank
    private var directive: [UInt8] = []
    private var isDirective = true
    private var isEscaped = false
    private var previous: UInt8?
    /// Whether something stands in the current word already.
    private var hasText = false
    private var isVariable = false

    mutating func read(_ byte: UInt8) -> String? {
        defer { previous = byte }
        if byte == .newline {
            if isEscaped {
                isEscaped = false
                return nil
            }
            let isOpen = if case .quoted = place { true } else { false }
            self = ApacheScanner()
            return isOpen ? "a quote is opened on this line and not closed on it" : nil
        }
        // A backslash before the line's end counts even behind another one; CR LF ends a line as LF does.
        if byte == .carriageReturn, isEscaped { return nil }
        let wasEscaped = isEscaped
        isEscaped = byte == .backslash
        if isVariable, byte == UInt8(ascii: "}") { isVariable = false }
        if byte == UInt8(ascii: "{"), previous == .dollar { isVariable = true }

        switch place {
        case .comment: break
        case .blank:
            if byte.isBlank || byte == .carriageReturn { break }
            if isDirective, byte == .hash {
                place = .comment
            } else if !isDirective, byte == .doubleQuote || byte == .singleQuote {
                place = .quoted(byte)
                hasText = false
            } else {
                place = .word
                hasText = true
                if isDirective { directive.append(byte.lowercased) }
            }
        case .word:
            if byte.isBlank {
                endWord()
            } else if isDirective {
                directive.append(byte.lowercased)
            }
        case .quoted(let quote):
            if byte == quote, !wasEscaped {
                endWord()
            } else {
                hasText = true
            }
            if wasEscaped, byte == .backslash { isEscaped = false }
        }
        return nil
    }

    private mutating func endWord() {
        place = .blank
        hasText = false
        isDirective = false
    }

    mutating func quote(_ value: Scalar, before following: Following) throws(Refusal) -> [UInt8] {
        if isVariable { throw .place("${…}") }
        if isEscaped { throw .place("an escape that the template began", "write the backslash twice, or put the tag first") }
        if place == .comment { return try CommentText.quote(value, refusing: "\\") }
        if isDirective { throw .place("the name of a directive") }
        var bytes = try value.bytes("On", "Off")
        if bytes.contains(.newline) { throw Refusal("has a line end, and Apache reads one line at a time") }
        let endsInDollar = bytes.last == .dollar && (following.first == UInt8(ascii: "{") || following.isTag)
        if bytes.contains("${") || endsInDollar || previous == .dollar && bytes.first == UInt8(ascii: "{") {
            throw Refusal("has ${ in it, which Apache replaces by a variable, however it is quoted")
        }
        bytes = try inMeaning(bytes)

        let isSection = directive.first == UInt8(ascii: "<")
        let text: [UInt8]
        if case .quoted(let quote) = place {
            text = Self.escaped(bytes, in: quote)
        } else if place == .blank, Self.endsWord(following, isSection: isSection) {
            // Some directives compare the rest of their line as it stands, so quotes only where they are needed.
            text = !bytes.isEmpty && bytes.consists(ofWordsAnd: "./:@,+-=~%")
                ? bytes : [.doubleQuote] + Self.escaped(bytes, in: .doubleQuote) + [.doubleQuote]
        } else {
            guard bytes.allSatisfy({ $0 > .space && $0 != 0x7f && !"\"'\\<>".utf8.contains($0) }) else {
                throw Refusal(
                    "has a blank, a quote, a backslash, < or >, and is only a part of a word; put the whole word into quotes")
            }
            text = bytes
        }
        place = place == .blank ? .word : place
        hasText = true
        previous = bytes.last ?? previous
        return text
    }

    private static func endsWord(_ following: Following, isSection: Bool) -> Bool {
        switch following {
        case .end: true
        case .tag: false
        case .text(let bytes):
            bytes.first.map {
                $0.isBlank || $0 == .newline || isSection && $0 == UInt8(ascii: ">")
            } ?? true || bytes.starts(with: [.carriageReturn, .newline])
        }
    }

    private static func escaped(_ bytes: [UInt8], in quote: UInt8) -> [UInt8] {
        bytes.flatMap { $0 == quote || $0 == .backslash ? [.backslash, $0] : [$0] }
    }

    private func inMeaning(_ bytes: [UInt8]) throws(Refusal) -> [UInt8] {
        switch meaning {
        case .text: return bytes
        case .format:
            // mod_headers takes a value that begins so for an expression.
            if !hasText, bytes.starts(with: "expr=".utf8) {
                throw Refusal("begins with expr=, which makes an expression of a header's value")
            }
            return bytes.flatMap { $0 == .percent || $0 == .backslash ? [$0, $0] : [$0] }
        case .expression:
            if bytes.contains(.percent) {
                throw Refusal("has %, which may begin an expression in this directive; SetEnv carries it")
            }
            return bytes
        case .language:
            guard bytes.allSatisfy({ $0.isWord || $0 == .space && quotedPlace || "./:@,=~-".utf8.contains($0) }) else {
                throw Refusal(
                    "stands in a directive that reads its text as a pattern, an expression, a program or a definition, "
                        + "and takes letters, digits and _ . / : @ , = ~ - only"
                        + "; SetEnv carries any value")
            }
            return bytes
        }
    }

    private var quotedPlace: Bool { if case .quoted = place { true } else { false } }

    private var meaning: Meaning {
        let name = String(decoding: directive, as: UTF8.self)
        switch name {
        case "setenv", "php_value", "php_admin_value", "php_flag", "php_admin_flag", "documentroot", "<directory", "servername",
            "serveralias", "serveradmin", "include", "includeoptional", "sslcertificatefile", "sslcertificatekeyfile":
            return .text
        case "header", "requestheader": return .format
        case "logformat", "customlog", "errorlog", "errorlogformat", "transferlog", "forensiclog", "globallog", "define", "use",
            "<macro", "<if", "<elseif", "rewriterule", "rewritecond", "rewritemap", "require", "setenvif", "setenvifnocase",
            "setenvifexpr", "browsermatch", "browsermatchnocase", "sslrequire", "substitute", "securitylogformat", "secrule",
            "extfilterdefine", "proxypassmatch":
            return .language
        case _ where name.hasSuffix("match"): return .language
        default: return .expression
        }
    }
}
