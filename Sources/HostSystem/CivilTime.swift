/// Seconds since 1970 of a date in UTC, by the proleptic Gregorian calendar.
public enum CivilTime {
    /// Nil where there is no such date or time. Second 60 of a leap second counts as the next minute's first.
    public static func seconds(
        year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0
    ) -> Int64? {
        guard (1970...9999).contains(year), (1...12).contains(month), (0..<24).contains(hour),
            (0..<60).contains(minute),
            (0...60).contains(second), day >= 1, day <= daysIn(month: month, year: year)
        else { return nil }
        // Days from the era's start, years beginning in March so that the leap day is the last (Howard Hinnant's civil_from_days).
        let shifted = month > 2 ? year : year - 1
        let era = shifted / 400
        let yearOfEra = shifted % 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        let days = era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
        return Int64(days * 86400 + hour * 3600 + minute * 60 + second)
    }

    private static func daysIn(month: Int, year: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }
}
