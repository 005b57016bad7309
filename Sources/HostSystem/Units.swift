/// An amount of bytes. Parsed from and printed in the units that people write.
public struct ByteCount: Sendable, Hashable, Comparable, CustomStringConvertible {
    public let value: Int64

    public init(_ value: Int64) { self.value = value }
    public init(_ value: Int) { self.value = Int64(value) }

    /// `64MiB`, `64M`, `1.5 GB`, `512`: decimal units end in `B` alone or nothing before it (`kB`, `MB`), binary ones in `iB`;
    /// a bare `K`, `M`, `G`, `T` is binary, as in dd(1) and systemd. Nil for anything else.
    public init?(parsing text: String) {
        let body = text.filter { $0 != " " && $0 != "_" }
        let digits = body.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        guard let number = Double(digits), number.isFinite, number >= 0 else { return nil }
        let factors: [String: Double] = [
            "": 1, "B": 1, "K": 1024, "KIB": 1024, "KB": 1e3, "M": 1_048_576, "MIB": 1_048_576, "MB": 1e6,
            "G": 1_073_741_824, "GIB": 1_073_741_824, "GB": 1e9, "T": 1_099_511_627_776, "TIB": 1_099_511_627_776,
            "TB": 1e12,
        ]
        guard let factor = factors[body.dropFirst(digits.count).uppercased()], number * factor < 9e18 else {
            return nil
        }
        value = Int64(number * factor)
    }

    public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
    public static func + (left: Self, right: Self) -> Self { Self(left.value + right.value) }

    /// Decimal units with one digit behind the point where it tells something: `828 MB`, `1.9 GB`, `512 B`.
    public var description: String {
        var amount = Double(value)
        for unit in ["B", "kB", "MB", "GB"] {
            if amount < 1000 { return Self.short(amount, whole: unit == "B") + " " + unit }
            amount /= 1000
        }
        return Self.short(amount, whole: false) + " TB"
    }

    private static func short(_ amount: Double, whole: Bool) -> String {
        if whole || amount >= 100 { return String(Int(amount)) }
        let tenths = Int((amount * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}

extension Duration {
    /// `10m`, `1h30m`, `90s`, `500ms`, `7d`, or a bare number of seconds. Nil for anything else, for zero units and negatives.
    public init?(parsing text: String) {
        let units: [String: Duration] = [
            "ms": .milliseconds(1), "s": .seconds(1), "m": .seconds(60), "h": .seconds(3600), "d": .seconds(86400),
            "w": .seconds(604_800),
        ]
        var rest = Substring(text.filter { $0 != " " })
        if let bare = Int64(rest), bare >= 0, bare < 1_000_000_000 {
            self = .seconds(bare)
            return
        }
        var total = Duration.zero
        guard !rest.isEmpty else { return nil }
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isASCII && $0.isNumber }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { $0.isASCII && $0.isLetter }
            rest = rest.dropFirst(unit.count)
            guard let amount = Int64(digits), amount < 1_000_000_000, let factor = units[unit.lowercased()] else {
                return nil
            }
            total += factor * Int(amount)
        }
        self = total
    }

    /// Seconds with their fraction.
    public var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }

    /// For a person: `0.42 s`, `12.3 s`, `3m 20s`, `36h`, `2d 4h`.
    public var spoken: String {
        let seconds = inSeconds
        if seconds < 10 { return Self.fixed(seconds, 2) + " s" }
        if seconds < 60 { return Self.fixed(seconds, 1) + " s" }
        let whole = Int64(seconds.rounded())
        let parts: [(Int64, String)] = [
            (whole / 86400, "d"), (whole % 86400 / 3600, "h"), (whole % 3600 / 60, "m"), (whole % 60, "s"),
        ]
        let first = parts.firstIndex { $0.0 > 0 } ?? 3
        return parts[first...].prefix(2).filter { $0.0 > 0 }.map { "\($0.0)\($0.1)" }.joined(separator: " ")
    }

    private static func fixed(_ value: Double, _ digits: Int) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let scaled = Int((value * scale).rounded())
        let fraction = String(scaled % Int(scale))
        return "\(scaled / Int(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
